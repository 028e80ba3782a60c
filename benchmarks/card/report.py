"""The table of a run: checks and measurements, of which none ends the others."""

import importlib.util
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from measure import table
from torch import Tensor

OK, FAILED, REACHED, MISSED = "ok", "FAILED", "reached", "missed"

_SHARE = 0.9
"""Of the minutes, after which no measurement is begun: the last one begun has to end, too."""


class Line(NamedTuple):
    """A row of the table."""

    part: str
    what: str
    value: str
    target: str
    result: str


class Report:
    """Collects the rows.

    Args:
        minutes: for all of the run.
        judges: says of measurements whether they reach their targets, which are a card's.

    Attributes:
        lines: the rows so far.
    """

    def __init__(self, *, minutes: float, judges: bool) -> None:
        self.lines: list[Line] = []
        self._judges = judges
        self._part = ""
        self._deadline = time.monotonic() + 60 * minutes * _SHARE

    def run(self, part: str, call: Callable[[], None], *, measures: bool = False) -> None:
        """Runs a part; where it breaks off, that is a failed row.

        Args:
            part: its name in the table.
            call: adds rows.
            measures: it is left out once the time is used up; checks never are.
        """
        self._part = part
        if measures and time.monotonic() > self._deadline:
            self.skip(part, "out of time")
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other parts have something to say
            traceback.print_exc()
            last = (str(error).strip().splitlines() or [""])[-1]
            self._add("broke off", f"{type(error).__name__}: {last}", "", FAILED)

    def check(self, what: str, value: object, *, demanded: str, held: bool) -> None:
        """Adds a check; one that doesn't hold fails the run."""
        self._add(what, value, demanded, OK if held else FAILED)

    def close(
        self, what: str, values: Sequence[Tensor], expected: Sequence[Tensor], *, rtol: float = 0, atol: float
    ) -> None:
        """Adds the check that tensors are those expected, up to rounding; NaN never is."""
        ours, theirs = _flat(values), _flat(expected)
        held = [each.shape for each in values] == [each.shape for each in expected]
        errors = (ours - theirs).abs() if held else torch.full((1,), torch.nan)
        held = held and bool((errors <= atol + rtol * theirs.abs()).all())
        bounds = [f"{rtol:g} of the value"] * (rtol > 0) + [f"{atol:g}"] * (atol > 0)
        self.check(what, f"largest error {errors.max().item():.1e}", demanded=" + ".join(bounds) or "equal", held=held)

    def measure(self, what: str, value: object, *, target: str = "", reached: bool | None = None) -> None:
        """Adds a measurement; one that misses its target fails nothing."""
        self._add(what, value, target, "" if reached is None or not self._judges else REACHED if reached else MISSED)

    def has(self, backbone: str) -> bool:
        """Whether a backbone's library is here; where it is missing, adds what isn't run."""
        here = not backbone.startswith("timm/") or importlib.util.find_spec("timm") is not None
        if not here:
            self.skip(backbone, "timm is missing")
        return here

    def skip(self, what: str, reason: str) -> None:
        """Adds what wasn't run, and why."""
        self._add(what, f"not run: {reason}", "", "")

    @property
    def num_failed(self) -> int:
        """Number of checks that didn't hold and parts that broke off."""
        return sum(line.result == FAILED for line in self.lines)

    def __str__(self) -> str:
        rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in self.lines]
        return table([name.replace("_", " ") for name in Line._fields], rows)

    def _add(self, what: str, value: object, target: str, result: str) -> None:
        self.lines.append(Line(self._part, what, str(value), target, result))
        # A run that is cut off leaves its rows behind.
        print(*self.lines[-1], sep=" | ", file=sys.stderr, flush=True)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().cpu().double().flatten() for tensor in tensors])
