"""What workers tell the watch of a run, and what it tells them."""

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["again", "elsewhere", "sick"]
"""The same is tried again there; rows are tried on another node; the node is sick."""

Outcome = Literal["passed", "done", "failed"]
"""Of a call: some rows got through; all are in error; the block comes back, for storage failed."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A process at work on a block."""

    number: str
    """Unique."""
    job: str
    """Unique to an execution of a pool."""
    pool: str
    """Names of the stages: the same in each execution."""
    worker: str
    """Ray's id of the process."""
    node: str
    place: str
    """The node, or a GPU on it: what is wrong with one of them says nothing of the others."""
    block: str
    """Digest of the rows; of a process that is set up, what Ray gives it to do, an actor or a task: the same in each
    try."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How a block is to be computed."""

    alone: bool = False
    """Row by row, with nothing beside it in the process."""
    first: frozenset[str] = frozenset()
    """Rows on which a process has died alone: before the others, in a fresh process."""
    last: frozenset[str] = frozenset()
    """The same where no other row has got through since: the others must show first that they do."""
    convicted: dict[str, str] = field(default_factory=dict)
    """Rows that must not be tried, with the reason."""
    sick: str | None = None
    """Why nothing is to be computed on the node."""
