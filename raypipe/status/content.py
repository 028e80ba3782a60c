"""What a status says of a run: plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raypipe.artifacts import Artifact
from raypipe.results import Decision
from raypipe.status.account import Account

State = Literal["done", "given", "begun", "missing", "follows"]
"""`given`: the config names it. `begun`: some rows, or epochs, are left. `missing`: it would be made. `follows`: it is
made of what is still to be made, and until then nobody knows whether it is there."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a run."""

    name: str
    """That of its folder below `out`; a frozen backbone's `features` are in that of the AffinityNet."""
    state: State
    why: str = ""
    """Why something is left to do; what is known of it where nothing is."""
    changes: Sequence[str] = ()
    """Options that are others than those of what is there, as `walk.beta 8 → 4`."""
    is_renewed: bool = False
    """An earlier one is there, of other options or inputs."""
    artifact: Artifact | None = None
    """None where it isn't known yet."""
    account: Account | None = None
    """Of a stream's rows."""
    seconds: float = 0
    """That all runs of it took, as far as they came to their end or are at work."""
    seconds_left: float | None = 0
    """None where nobody knows."""

    @property
    def is_left(self) -> bool:
        """Whether a run would do something."""
        return self.state not in ("done", "given")


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is done of a run, what it would compute now, and why."""

    out: str
    steps: Sequence[Step]
    """In the order of a run."""
    num_images: int
    """That get masks."""
    at_work: Sequence[str] = ()
    """Who writes to the folders now."""
    labels: Sequence[str] = ()
    """What the classifier knows, in short, then by class; and where that is little, what has probably gone wrong."""
    gates: Sequence[Decision] = ()
    """Which refinements the gates keep and reject; none as long as that isn't decided."""
    differs: Sequence[str] = ()
    """Options that are others than those of the last run in `out`, as `walk.beta 8 → 4`."""
    refused: str | None = None
    """Why a run would be refused, and the ways out."""
    last_masks: str | None = None
    """URI of the folder of masks that `masks.json` names, of whatever options."""

    def step(self, name: str) -> Step | None:
        """A step by its name; None where the run hasn't it."""
        return next((step for step in self.steps if step.name == name), None)
