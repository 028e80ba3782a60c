"""How many options the config has: few enough to be looked through, and no more by and by."""

from collections.abc import Iterator
from types import GenericAlias
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field

from raypipe.config import RunConfig
from raypipe.config.base import Section

MOST = 110
"""A new option takes the place of an old one, or has a measured reason."""


def options(model: type[BaseModel]) -> Iterator[str]:
    """Dotted names of the leaves; a free mapping is one leaf, as its names belong to other sections."""
    for name, field in model.model_fields.items():
        sections = [*models(field.annotation)]
        yield from (f"{name}.{leaf}" for section in sections for leaf in options(section))
        if not sections:
            yield name


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation, however deep: alone, optional, one of several, in a tuple or a mapping."""
    if isinstance(annotation, type) and not isinstance(annotation, GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from models(part)


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
