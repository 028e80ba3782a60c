"""What every option does, for people: one text, as comments in a config and as a page.

The text is the option's own docstring, the range comes from its type, and the group from the table below.
"""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raypipe.config.base import Backbone
from raypipe.config.overrides import literal
from raypipe.config.root import RunConfig
from raypipe.uri import Uri

Group = Literal["wanted", "possible", "expert"]

HEADINGS: dict[Group, str] = {
    "wanted": "You will want these: what a run is of, and what it does",
    "possible": "You may change these: what suits your images and your time",
    "expert": "For experts: what the papers, the presets and the planner set well",
}
"""In the order in which groups are shown."""

WANTED = (
    *("manifest", "out", "splits.train", "splits.masks", "network.backbone", "network.weights", "classifier.epochs"),
    *("affinity.epochs", "walk.alpha", "walk.beta", "walk.num_steps", "refinement.method", "segmenter.enabled"),
)

EXPERT = (
    *("precision", "images.bands", "images.tile", "network.preprocessing", "cams.out_stride", "trimaps.crf_stride"),
    *("trimaps.refine", "affinity.radius", "affinity.jitter", "walk.count_padding", "refinement.compat_bilateral"),
    *("classifier.output_stride", "classifier.max_images", "affinity.max_images", "segmenter.max_images"),
)
EXPERT_SECTIONS = ("optimizer", "classifier.saliency_loss", "cluster", "sweep", "calibration", "saliency")

_WIDTH = 100
"""Characters of a line of comment."""


@dataclass(frozen=True)
class Option:
    """One option of the config."""

    name: str
    """Dotted."""
    text: str
    allowed: str
    default: Any
    """As JSON has it; None for an option that has to be given, too."""
    required: bool
    group: Group


def options() -> list[Option]:
    """All options, group by group, each group in the config's own order."""
    found = list(_options(RunConfig, ""))
    return [option for group in HEADINGS for option in found if option.group == group]


def commented_config(config: RunConfig) -> str:
    """A config as YAML: every option by its dotted name, behind what it does and its range."""
    values: dict[str, Any] = literal(config.model_dump(mode="json"))
    lines = ["# Every option of a run; what is left out has the default. `raypipe run` takes this file."]
    for heading, of_group in _grouped():
        lines += ["", f"# == {heading} =="]
        for option in of_group:
            value: Any = values
            for part in option.name.split("."):
                value = value[part]
            allowed = option.allowed
            if not option.required and value != option.default:
                allowed += f"; default {shown(option.default)}"
            lines += ["", *(f"# {line}" for line in textwrap.wrap(option.text, _WIDTH, break_on_hyphens=False))]
            lines += [f"# Allowed: {allowed}.", f"{option.name}: {shown(value)}"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The same as a page of the documentation."""
    lines = [
        "# Settings",
        "",
        "Every option, as `raypipe config` prints it; `raypipe config --for MANIFEST` prints what suits a dataset.",
        "On the command line an option is an override, such as `walk.beta=4`. In a file it stands under its dotted",
        "name or in its section. `make settings` makes the page of the options' own texts, and a test compares them.",
    ]
    for heading, of_group in _grouped():
        title, _, about = heading.partition(": ")
        lines += ["", f"## {title}", "", f"{about.capitalize()}.", ""]
        lines += ["| option | what it does | allowed | default |", "|---|---|---|---|"]
        for option in of_group:
            default = "–" if option.required else f"`{shown(option.default)}`"
            lines.append(f"| `{option.name}` | {option.text} | {option.allowed} | {default} |")
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A value as YAML and the command line take it."""
    return json.dumps(value, ensure_ascii=False)


def _grouped() -> Iterator[tuple[str, list[Option]]]:
    """Heading and options of each group."""
    found = options()
    for group, heading in HEADINGS.items():
        yield heading, [option for option in found if option.group == group]


def _options(section: type[BaseModel], prefix: str) -> Iterator[Option]:
    hints = get_type_hints(section, include_extras=True)
    for name, field in section.model_fields.items():
        dotted = prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _options(field.annotation, f"{dotted}.")
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield Option(
            name=dotted,
            text=_text(field),
            allowed=_allowed(hints[name], field),
            default=json.loads(json.dumps(default)),
            required=field.is_required(),
            group=_group(dotted),
        )


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _group(name: str) -> Group:
    if name in WANTED:
        return "wanted"
    return "expert" if name in EXPERT or name.startswith(tuple(f"{each}." for each in EXPERT_SECTIONS)) else "possible"


def _allowed(hint: Any, field: FieldInfo) -> str:
    """What an option takes, in words."""
    range_ = _range(field.metadata)
    return " ".join([_kind(hint), *([range_] if range_ else []), *(["or null"] if _is_optional(hint) else [])])


def _is_optional(hint: Any) -> bool:
    if get_origin(hint) is Annotated and hint not in (Uri, Backbone):
        return _is_optional(get_args(hint)[0])
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def _kind(hint: Any) -> str:
    if hint == Uri:
        return "a path or URI"
    if hint == Backbone:
        return "a network's name"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in arguments if each is not NoneType)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {_several(arguments[0])}"
        return f"a list of {len(arguments)} {_several(arguments[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(hint, "a mapping")


def _several(hint: Any) -> str:
    kind = _kind(hint)
    return {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts"}.get(kind, f"({kind})")


def _range(metadata: list[Any]) -> str:
    words = []
    for each in metadata:
        match each:
            case Ge(ge=bound):
                words.append(f"at least {bound}")
            case Gt(gt=bound):
                words.append(f"above {bound}")
            case Le(le=bound):
                words.append(f"at most {bound}")
            case Lt(lt=bound):
                words.append(f"below {bound}")
            case MultipleOf(multiple_of=factor):
                words.append(f"a multiple of {factor}")
    return " and ".join(words)
