import io
from contextlib import suppress
from pathlib import Path

from raypipe.screen.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_stand_above_the_bar() -> None:
    stream = Terminal()
    console = Console(stream)
    assert console.is_live
    console.bar("step 1 of 2, seeds: 3 of 39 images", done=3, total=39)
    console.line("gate: kept")
    console.no_bar()
    console.line("done")
    parts = stream.getvalue().split("\n")
    assert "seeds: 3 of 39 images" in parts[0]
    assert parts[0].endswith("\rgate: kept")
    assert "seeds: 3 of 39 images" in parts[1], "it is drawn again"
    assert parts[1].endswith("\rdone")


def test_without_a_bar_there_are_lines_alone() -> None:
    stream = io.StringIO()
    console = Console(stream)
    assert not console.is_live
    console.no_bar()
    console.line("one")
    assert stream.getvalue() == "one\n"


def test_a_terminal_that_is_gone_fails_nobody() -> None:
    with Path("/dev/full").open("w", buffering=1) as gone:
        Console(gone).line("one")
        with suppress(OSError):
            gone.close()
