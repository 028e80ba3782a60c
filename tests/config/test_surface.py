"""How many options the config has: few enough to be looked through, and no more by and by."""

from typing import Any, Literal

from config_options import options
from pydantic import Field

from raypipe.config import RunConfig
from raypipe.config.base import Section

MOST = 110
"""A new option takes the place of an old one, or has a measured reason."""


def test_no_more_options() -> None:
    names = sorted(options(RunConfig))
    print(f"{len(names)} options")
    assert len(names) <= MOST, f"{len(names)} options: give one up for each that comes. All: {', '.join(names)}"


def test_options_are_counted_wherever_they_hide() -> None:
    class Inner(Section):
        a: int = 0
        b: Literal["x", "y"] = "x"

    class Outer(Section):
        plain: tuple[int, ...] = ()
        free: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
        nested: Inner = Inner()
        optional: Inner | None = None
        mapping: dict[str, Inner | None] = Field(default_factory=dict)
        several: tuple[Inner, ...] = ()

    inner = [f"{name}.{leaf}" for name in ("nested", "optional", "mapping", "several") for leaf in ("a", "b")]
    assert [*options(Outer)] == ["plain", "free", *inner]
