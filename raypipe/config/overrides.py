"""Reads dotted overrides, `name=value`: what the shell said is what the option gets.

The option's type decides. The value of a text (a URI, a name, a choice) is that text and nothing else, whatever it
means in YAML: `out=runs/try #2`, `out=2024_10`, `refinement.gate=off`. Numbers, booleans, lists and mappings are read
as YAML; the texts in a list or mapping are texts, too, and so is a choice where the option may also be a list. `null`
is null where the option may be null. A type with several forms takes the text where any text is among them.
`${oc.env:NAME}` is a variable of the environment; any other `$` stands for itself.
"""

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from raypipe.config.root import RunConfig
from raypipe.credentials import refuse_credentials

_INTERPOLATION = re.compile(r"(\\*)\$\{(?!oc\.env:\w+(?:,[^{}]*)?\})")
_ANY_INTERPOLATION = re.compile(r"(\\*)\$\{")
_MISSING = re.compile(r"\\*\?\?\?")
"""OmegaConf takes ??? for a value that is still to come."""

_TRAINING = "sweep.training"
"""The option whose keys are names of options."""


def read_override(override: str) -> tuple[str, Any]:
    """The name and the value of an override.

    Returns:
        The dotted name, and the value, in which texts are such that OmegaConf resolves nothing but `${oc.env:…}`.

    Raises:
        ValueError: it has no name or no `=`, or a list or mapping isn't YAML.
    """
    name, equals, text = override.partition("=")
    refuse_credentials(text, where=name)  # first: what follows quotes values
    if not name or not equals:
        raise ValueError(f"expected overrides of the form NAME=VALUE, such as walk.beta=4, got {override[:200]!r}")
    annotation = str if name == "preset" else option_type(name)
    kinds = _kinds(annotation)
    if annotation is None or str in kinds or not any(map(_holds_others, kinds)):
        return name, _typed(text, annotation or str)
    try:
        node = yaml.BaseLoader(text).get_single_data()  # makes texts, lists and mappings, nothing else
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: got {text[:200]!r}, which isn't YAML ({reason}): put texts in quotes") from error
    return name, _typed_training(node) if name == _TRAINING else _typed(node, annotation)


def literal(value: Any, pattern: re.Pattern[str] = _ANY_INTERPOLATION) -> Any:
    """A value whose texts OmegaConf takes as they are."""
    if isinstance(value, Mapping):
        return {name: literal(part, pattern) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [literal(part, pattern) for part in value]
    if not isinstance(value, str):
        return value
    if _MISSING.fullmatch(value):
        return f"\\{value}"
    return pattern.sub(lambda found: f"{found[1] * 2}\\${{", value)


def option_type(name: str) -> Any:
    """The declared type of an option or section, by its dotted name; None where there is none of this name."""
    found: Any = RunConfig
    for part in name.split("."):
        fields = found.model_fields if isinstance(found, type) and issubclass(found, BaseModel) else {}
        if part not in fields:
            return None
        found = fields[part].annotation
    return found


def _typed(node: Any, annotation: Any) -> Any:
    """What a text, or a list or mapping of texts, is for an option of a type; pydantic refuses what it can't be."""
    kinds = _kinds(annotation)
    if isinstance(node, Mapping):
        return {name: _typed(part, _part_type(kinds, name)) for name, part in node.items()}
    if isinstance(node, list):
        return [_typed(part, _part_type(kinds, index)) for index, part in enumerate(node)]
    if node == "null" and (NoneType in kinds or Any in kinds):
        return None
    return literal(node, _INTERPOLATION) if _is_text(kinds) else _scalar(node)


def _typed_training(node: Any) -> Any:
    """The values of `sweep.training`, each for the option that its name names, also in mappings below other names."""
    if not isinstance(node, Mapping):
        return _typed(node, Any)
    return {
        name: [_typed_training(each) if isinstance(each, Mapping) else _typed(each, kind) for each in some]
        if isinstance(some, list)
        else _typed(some, kind)
        for name, some in node.items()
        for kind in [option_type(name) or Any]
    }


def _kinds(annotation: Any) -> list[Any]:
    """The types of which a value may be one."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]


def _is_text(kinds: list[Any]) -> bool:
    return any(
        kind is str or (get_origin(kind) is Literal and all(isinstance(each, str) for each in get_args(kind)))
        for kind in kinds
    )


def _holds_others(kind: Any) -> bool:
    """Whether a value is a list or mapping, or may be one."""
    section = isinstance(kind, type) and issubclass(kind, BaseModel)
    return section or kind is Any or get_origin(kind) in (tuple, list, dict)


def _part_type(kinds: list[Any], key: str | int) -> Any:
    """The type of what a list or mapping holds at a place."""
    for kind in kinds:
        arguments = get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
            return kind.model_fields[str(key)].rebuild_annotation()
        if get_origin(kind) in (tuple, list) and isinstance(key, int):
            return arguments[0] if arguments[-1] is ... or len(arguments) <= key else arguments[key]
        if get_origin(kind) is dict:
            return arguments[1]
    return Any


def _scalar(text: str) -> Any:
    """A number or a boolean, as YAML has them; any other text stays what it is, also 12:30, which is 750 to YAML."""
    from omegaconf import OmegaConf

    if ":" in text or "$" in text:
        return literal(text, _INTERPOLATION)
    try:
        value = OmegaConf.from_dotlist([f"value={text}"])["value"]
    except (yaml.YAMLError, ValueError, TypeError):
        return text
    return value if isinstance(value, int | float) else literal(text, _INTERPOLATION)
