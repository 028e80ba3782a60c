"""Which faults strike and when: a function of the seed alone."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A kind of fault, in the words of the report."""

    WORKER = "worker killed"
    TRAINER = "training worker killed"
    CONTROLLER = "training's controller killed"
    STOPPED = "worker stopped"
    WATCH = "watch killed"
    RAYLET = "raylet killed"
    DRIVER = "driver killed"
    AWAY = "storage away"
    SPOILED = "requests spoiled"


SECONDS = {
    Kind.STOPPED: (3.0, 12.0),
    Kind.RAYLET: (5.0, 15.0),
    Kind.AWAY: (5.0, 20.0),
    Kind.SPOILED: (5.0, 20.0),
}
"""How long a fault lasts, from and to; for a raylet, until another node is there. The others are over at once."""

RATES = (0.05, 0.1)
"""Share of the requests that are spoiled, from and to."""

CALM = (8.0, 25.0)
"""Seconds between the end of a fault and the next one, from and to."""

RECOVERY = {Kind.RAYLET: 10.0, Kind.DRIVER: 20.0, Kind.AWAY: 5.0, Kind.TRAINER: 5.0, Kind.CONTROLLER: 5.0}
"""Seconds more after such a fault, in which the run gets going again: without them it might never get on."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A fault."""

    kind: Kind
    calm: float
    """Seconds since the end of the one before, or since the start of the run."""
    seconds: float
    """It lasts so long."""
    pick: float
    """Which of those that it may hit, ordered by age: 0 the first, just below 1 the last."""
    rate: float
    """Share of the requests that are spoiled, where that is the fault."""
    seed: int
    """Of the requests that are spoiled."""

    def __str__(self) -> str:
        """The fault in words."""
        if self.kind is Kind.SPOILED:
            return f"{self.rate:.0%} of the {self.kind} for {self.seconds:.0f} s"
        return f"{self.kind} for {self.seconds:.0f} s" if self.seconds else str(self.kind)


def plan_strikes(seed: int, *, seconds: float) -> tuple[Strike, ...]:
    """The faults of a seed, as many as begin within some seconds. Each kind comes once before one comes again.

    Raises:
        ValueError: if there is no time.
    """
    if seconds <= 0:
        raise ValueError(f"faults need more than 0 seconds, got {seconds:g}")
    rng = random.Random(seed)
    strikes: list[Strike] = []
    left: list[Kind] = []
    now = recovery = 0.0
    while True:
        if not left:
            left = list(Kind)
            rng.shuffle(left)
        kind = left.pop()
        strike = Strike(
            kind=kind,
            calm=rng.uniform(*CALM) + recovery,
            seconds=rng.uniform(*SECONDS.get(kind, (0.0, 0.0))),
            pick=rng.random(),
            rate=rng.uniform(*RATES),
            seed=rng.randrange(2**31),
        )
        if (now := now + strike.calm) > seconds:
            return tuple(strikes)
        strikes.append(strike)
        now += strike.seconds
        recovery = RECOVERY.get(kind, 0.0)
