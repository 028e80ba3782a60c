import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from raypipe import processes
from raypipe.processes import Process, this_process

CODE = """
import json, sys
from dataclasses import asdict
from raypipe.processes import this_process

print(json.dumps(asdict(this_process())), flush=True)
sys.stdin.read()
"""


def test_a_process_has_ended_when_it_was_killed_and_before_it_was_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        process = Process(**json.loads(child.stdout.readline()))
        assert process.pid == child.pid
        assert not process.has_ended()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.has_ended()
    assert process.has_ended()


def test_another_process_with_the_same_id_is_not_the_same() -> None:
    assert not this_process().has_ended()
    assert replace(this_process(), start="1").has_ended()


def test_somebody_elses_process_is_alive() -> None:
    assert not replace(this_process(), pid=1, start=processes._start(1)).has_ended()


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"kernel": "another start"}, {"kernel": None}])
def test_nothing_is_known_of_other_machines(change: dict[str, str | None]) -> None:
    assert not replace(this_process(), pid=2**22 + 1, start="1", **change).has_ended()
    assert replace(this_process(), pid=2**22 + 1).has_ended()
