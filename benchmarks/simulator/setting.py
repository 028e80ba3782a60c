"""What a simulation is told, and what it has seen."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class Killed(RuntimeError):  # noqa: N818 - says what happened
    """The driver is gone."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A cluster that isn't there, and its work."""

    nodes: int = 64
    cpus: int = 16
    gpus: int = 1
    memory: int = 64
    """GiB."""
    card: float = 0.1
    """Seconds of an image on a card."""
    core: float = 0.5
    """Seconds of an image on a core after that."""
    image_bytes: int = 100_000
    failing: float = 0.001
    """Share of the rows that is in error."""
    block: float = 0.010
    """Seconds of the driver for a block and an operator, as `overhead` measures them."""
    start: float = 15.0
    """Seconds until an actor with networks is up."""


@dataclass
class Seen:
    """What a run has done."""

    begun: float = 0.0
    first_read: float | None = None
    """When the first block was there for the pools."""
    first: float | None = None
    """When the first block was through."""
    last_card: float = 0.0
    """When a card worked last."""
    busy: float = 0.0
    """Seconds of all cards together."""
    blocks: int = 0
    rows: int = 0
    """That were written."""
    times: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """How often the row with a number was written, as far as rows are counted."""
    look: Callable[[int], None] = lambda _: None
    """Is called with the number of blocks that are through."""
