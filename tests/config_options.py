"""Every option of a config, by its dotted name."""

from collections.abc import Iterator
from types import GenericAlias
from typing import Any, get_args

from pydantic import BaseModel


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
