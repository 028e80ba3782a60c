import json
import logging
from collections.abc import Iterator

import pytest

from raypipe.screen.worker import MARK, Counted, Counter, Said, in_worker, read


@pytest.fixture
def marked() -> Iterator[logging.Logger]:
    """The logger of raypipe in a worker."""
    ours = logging.getLogger("raypipe")
    before, level = list(ours.handlers), ours.level
    in_worker()
    in_worker()
    yield ours
    ours.handlers[:] = before
    ours.setLevel(level)


def test_a_message_comes_through(marked: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("raypipe.stages").warning("%s:\n%d", "no PNG", 7)
    logging.getLogger("ray").warning("someone else's")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if MARK in line]
    before = "\x1b[36m(RayTrainWorker pid=7, ip=10.0.0.1)\x1b[0m "
    assert read(before + line) == ("(RayTrainWorker pid=7, ip=10.0.0.1) ", Said("no PNG:\n7", logging.WARNING))


def test_what_several_workers_say_comes_once_with_how_often() -> None:
    line = MARK + json.dumps({"text": "no PNG", "level": 30}) + "\x1b[32m [repeated 3x across cluster]\x1b[0m"
    assert read(line) == ("", Said("no PNG (and 3 times more)", 30))
    assert read(line + " (Ray deduplicates logs by default.)") == read(line)


def test_counts_come_once_a_second_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    counter = Counter("classifier", 5)
    for done in range(1, 6):
        counter.tell(done)
    found = [read(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [("", Counted("classifier", 1, 5)), ("", Counted("classifier", 5, 5))]


@pytest.mark.parametrize("line", ["", "a line", MARK, MARK + "{", MARK + "{}", MARK + "[1]", MARK + '{"step": 1}'])
def test_other_lines_say_nothing(line: str) -> None:
    assert read(line) is None
