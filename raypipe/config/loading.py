"""From YAML, presets and dotted overrides to a validated config.

A config is the defaults, overlaid by a preset (`preset: psa`), by a YAML file and by dotted overrides (`walk.beta=4`).
Merging is OmegaConf's, as are `${oc.env:HOME}` and `${seed}` in the file, validation pydantic's; what is unknown or
impossible is refused with what was got, what is allowed and the nearest name.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from raypipe.config.root import RunConfig
from raypipe.credentials import refuse_credentials

if TYPE_CHECKING:
    from omegaconf import DictConfig


class ConfigError(ValueError):
    """A config that can't be used; the message lists every problem and its way out."""


_SHOWN = 200
"""Characters of a value that a message shows."""


def presets() -> tuple[str, ...]:
    """Names of the presets that come with raypipe."""
    names = (file.name for file in resources.files("raypipe.recipes").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_config(text: str = "", overrides: Sequence[str] = ()) -> RunConfig:
    """The resolved config of a YAML text and dotted overrides.

    Args:
        text: YAML, each option in its section or at the top by its dotted name; `preset: NAME` names the preset that it
            overlays.
        overrides: `section.name=value`, applied last; `raypipe.config.overrides` says how they are read.

    Raises:
        ConfigError: for unreadable YAML, unknown presets or names, impossible values, all problems in one message; for
            a URI with credentials.
    """
    from omegaconf import DictConfig, OmegaConf  # only what reads and writes YAML needs it
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from raypipe.config.overrides import read_override

    try:
        given = OmegaConf.create(text or "{}")
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"the config isn't YAML: {_where(error)}; `raypipe config` prints one") from error
    if not isinstance(given, DictConfig):
        raise ConfigError(f"the config must be a mapping of sections, got {text.splitlines()[0][:200]!r}")
    user = _in_sections(given)
    try:
        given_last = [_nested(*read_override(override)) for override in overrides]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    user = DictConfig(OmegaConf.merge(user, *given_last))  # at once: each merge copies the whole config
    preset = user.pop("preset", None)
    if preset is not None:
        names = presets()
        if preset not in names:
            raise ConfigError(f"preset: got {preset!r}, allowed are {', '.join(names)}.{_nearest(str(preset), names)}")
        recipe = OmegaConf.create(resources.files("raypipe.recipes").joinpath(f"{preset}.yaml").read_text())
        user = DictConfig(OmegaConf.merge(recipe, user))
    try:
        values = OmegaConf.to_container(user, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{error.full_key}: {str(error.msg).splitlines()[0]}. ${{oc.env:NAME}} is a variable of the environment "
            "and, in the file, ${section.name} another option; \\${ is the text ${"
        ) from error
    try:
        _refuse_credentials(values, "config")  # first: what follows quotes values
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error))) from error
    for changes in config.sweep.training_changes:
        trial_config(config, changes)
    training = {name: tuple(_swept(name, value) for value in values) for name, values in config.sweep.training.items()}
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"training": training})})


def _where(error: Exception) -> str:
    """What is wrong with a YAML text, and in which lines."""
    marks = (getattr(error, name, None) for name in ("context_mark", "problem_mark"))
    lines = sorted({mark.line + 1 for mark in marks if mark is not None})
    if not lines:
        return str(error)
    return (
        f"{'line' if len(lines) == 1 else 'lines'} {' to '.join(map(str, lines))}: {getattr(error, 'problem', error)}"
    )


def _swept(name: str, value: Any) -> Any:
    """A value of an outer sweep, with URIs made absolute here: trials may run elsewhere."""
    if isinstance(value, Mapping):
        return {part: _swept(part, of_part) for part, of_part in value.items()}
    if not isinstance(value, str):
        return value
    *path, option = name.split(".")
    return TypeAdapter(_fields(path)[option].rebuild_annotation()).validate_python(value)


def _in_sections(given: "DictConfig") -> "DictConfig":
    """The config with its dotted names in their sections: `walk.beta: 4` is `walk: {beta: 4}`.

    Raises:
        ConfigError: an option is there in both forms.
    """
    from omegaconf import DictConfig, OmegaConf

    content: Any = OmegaConf.to_container(given, resolve=False)
    dotted = [name for name in content if isinstance(name, str) and "." in name]
    for name in dotted:
        value = content.pop(name)
        *path, option = name.split(".")
        section = content
        for part in path:
            section = section.setdefault(part, {}) if isinstance(section, dict) else section
        if not isinstance(section, dict) or option in section:
            raise ConfigError(f"{name} is there twice, by its dotted name and in its section: leave one out")
        section[option] = value
    return DictConfig(content) if dotted else given


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def trial_config(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The config of one trial, which sweeps the walk alone.

    Args:
        config: the outer sweep's.
        changes: dotted names to values.

    Raises:
        ConfigError: as `load_config`.
    """
    values = config.model_dump(mode="json")
    values["sweep"] |= {"training": {}}
    for name, value in changes.items():
        *path, option = name.split(".")
        section = values
        for part in path:
            section = section.setdefault(part, {})
        section[option] = value
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"sweep.training: {line}" for line in _explain(error))) from error


def to_yaml(config: BaseModel) -> str:
    """The config as YAML, every value spelled out."""
    from omegaconf import OmegaConf

    from raypipe.config.overrides import literal

    return str(OmegaConf.to_yaml(OmegaConf.create(literal(config.model_dump(mode="json")))))


def _refuse_credentials(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _refuse_credentials(part, f"{name}.{key}".removeprefix("config."))
    elif isinstance(value, list):
        for part in value:
            _refuse_credentials(part, name)
    elif isinstance(value, str):
        refuse_credentials(value, where=name)


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        name = ".".join(path)
        got = repr(problem["input"])
        got = got if len(got) <= _SHOWN else f"{got[:_SHOWN]}…"
        message = problem["msg"].removeprefix("Value error, ")
        match problem["type"]:
            case "extra_forbidden":
                allowed = list(_fields(path[:-1]))
                hint = _anywhere(path[-1], allowed)
                yield f"{name}: unknown name; allowed are {', '.join(allowed)}.{hint}"
            case "missing" if path[-1].isdigit():
                yield f"{'.'.join(path[:-1])}: got {got}, expected more values."
            case "missing":
                yield f"{name}: missing; give it in the YAML file or as {name}=VALUE."
            case "literal_error":
                expected = str(problem.get("ctx", {}).get("expected", ""))
                choices = [choice.strip("' ") for choice in expected.replace(" or ", ",").split(",")]
                yield f"{name}: got {got}, allowed are {expected}.{_nearest(str(problem['input']), choices)}"
            case "string_type":
                yield f"{name}: got {got}, expected a text; in a YAML file, put it in quotes."
            case "model_type" | "dict_type":
                yield f"{name or 'config'}: got {got}, expected a mapping, such as {{name: value}}."
            case "tuple_type" | "list_type":
                yield f"{name}: got {got}, expected a list in brackets, such as [a, b]."
            case _:
                yield f"{name or 'config'}: got {got}: {message}."


def _fields(path: Sequence[str]) -> dict[str, FieldInfo]:
    """The options of a section, by the names that lead to it."""
    section: Any = RunConfig
    for part in path:
        section = section.model_fields[part].annotation
    fields: dict[str, FieldInfo] = section.model_fields
    return fields


def _anywhere(name: str, allowed: Sequence[str]) -> str:
    """Asks for the options of this name in other sections, else for the nearest name in this one or in others."""
    dotted = {each: each.rpartition(".")[2] for each in _dotted(RunConfig)}
    if name not in dotted.values():
        if hint := _nearest(name, allowed):
            return hint
        name = next(iter(difflib.get_close_matches(name, dotted.values(), n=1)), name)
    found = [repr(each) for each, its_name in dotted.items() if its_name == name]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def _dotted(section: type[BaseModel]) -> Iterator[str]:
    """Names of all options in a section and in those below it."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{name}.{each}" for each in _dotted(field.annotation))
        else:
            yield name


def _nearest(name: str, choices: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, choices, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
