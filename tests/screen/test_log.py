import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raypipe.screen.console import Console
from raypipe.screen.log import Handler, Lines, Log
from raypipe.screen.step import step
from raypipe.screen.worker import MARK


@pytest.fixture
def make_log(tmp_path: Path) -> Callable[..., Log]:
    def make(*, verbose: bool = False) -> Log:
        return Log(tmp_path / "log", Console(io.StringIO()), verbose=verbose)

    return make


def shown(log: Log) -> str:
    stream: Any = log.console.stream
    return str(stream.getvalue())


def marked(**found: object) -> str:
    return "(pid=7) " + MARK + json.dumps(found)


def test_what_others_say_is_in_the_log_and_shown_where_that_is_asked_for(make_log: Callable[..., Log]) -> None:
    for verbose in (False, True):
        log = make_log(verbose=verbose)
        log.foreign("\x1b[36m(pid=7)\x1b[0m Starting execution")
        assert log.path.read_text().splitlines()[-1] == "(pid=7) Starting execution"
        assert shown(log) == ("\x1b[36m(pid=7)\x1b[0m Starting execution\n" if verbose else "")


def test_a_workers_warning_is_shown_and_its_remark_is_not(make_log: Callable[..., Log]) -> None:
    log = make_log()
    log.foreign(marked(text="no PNG", level=logging.WARNING))
    log.foreign(marked(text="weights: the head is left out", level=logging.INFO))
    assert shown(log) == "no PNG\n"
    assert log.path.read_text() == "(pid=7) WARNING no PNG\n(pid=7) INFO weights: the head is left out\n"


def test_a_workers_count_is_that_of_its_step(make_log: Callable[..., Log]) -> None:
    log = make_log()
    with step("classifier") as counted:
        log.foreign(marked(step="affinity", done=9, total=9))
        log.foreign(marked(step="classifier", done=3, total=40))
        assert (counted.done, counted.total) == (3, 40)
    log.foreign(marked(step="classifier", done=4, total=40))
    assert counted.done == 3
    assert log.path.read_text() == ""


def test_lines_are_whole_and_those_of_the_main_thread_go_elsewhere() -> None:
    lines: list[str] = []
    main = io.StringIO()
    stream = Lines(lines.append, main=main)
    print("a result", file=stream)

    def write() -> None:
        print("half", end="", file=stream)
        print(" a line\nnext", file=stream)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert lines == ["half a line", "next"]
    assert main.getvalue() == "a result\n"


def test_the_handler_shows_our_own_and_keeps_all(make_log: Callable[..., Log]) -> None:
    log = make_log()
    handler = Handler(log.console)
    handler.log = log

    def say(name: str, level: int, text: str) -> None:
        handler.emit(logging.LogRecord(name, level, __file__, 1, text, None, None))

    say("raypipe.run", logging.INFO, "gate: kept")
    say("raypipe.run", logging.DEBUG, "where it is")
    say("botocore", logging.WARNING, "a remark")
    assert shown(log) == "gate: kept\n"
    assert [line.split(": ", 1)[1] for line in log.path.read_text().splitlines()] == [
        "gate: kept",
        "where it is",
        "a remark",
    ]


def test_a_log_that_cant_be_written_is_said_once_and_fails_nobody(make_log: Callable[..., Log]) -> None:
    log = make_log()
    with Path("/dev/full").open("w", buffering=1) as full:
        log._file = full
        log.write("a")
        log.write("b")
        with suppress(OSError):
            full.close()
    assert shown(log).count("can't be written any more") == 1


def test_a_process_whose_libraries_write_to_its_descriptor(tmp_path: Path) -> None:
    program = """
import os, sys, threading
from pathlib import Path
from raypipe.screen.console import console_of_process
from raypipe.screen.log import Log
console = console_of_process()
Log(Path(sys.argv[1]), console, verbose=False).begin()
os.write(2, b"KillActor RPC failed\\n")
print("a warning", file=sys.stderr)
thread = threading.Thread(target=print, args=("of a worker",)); thread.start(); thread.join()
console.line("ours")
print("the result")
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("the result\n", "ours\n")
    assert (tmp_path / "log").read_text().splitlines() == ["KillActor RPC failed", "a warning", "of a worker"]
