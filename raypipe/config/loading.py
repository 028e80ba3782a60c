"""From YAML, presets and dotted overrides to a validated config.

A config is the defaults, overlaid by a preset (`preset: psa`), by a YAML file and by dotted overrides (`walk.beta=4`).
Merging is OmegaConf's, validation pydantic's; what is unknown or impossible is refused with what was got, what is
allowed and the nearest name.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from raypipe.config.root import RunConfig
from raypipe.credentials import refuse_credentials


class ConfigError(ValueError):
    """A config that can't be used; the message lists every problem and its way out."""


def presets() -> tuple[str, ...]:
    """Names of the presets that come with raypipe."""
    names = (file.name for file in resources.files("raypipe.recipes").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_config(text: str = "", overrides: Sequence[str] = ()) -> RunConfig:
    """The resolved config of a YAML text and dotted overrides.

    Args:
        text: YAML; `preset: NAME` at the top names the preset that it overlays.
        overrides: `section.name=value`, applied last.

    Raises:
        ConfigError: for unreadable YAML, unknown presets or names, impossible values, all problems in one message; for
            a URI with credentials.
    """
    from omegaconf import DictConfig, OmegaConf  # only what reads and writes YAML needs it
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        given = OmegaConf.create(text or "{}")
        overlay = OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"the config isn't YAML with dotted overrides (name.name=value): {error}") from error
    if not isinstance(given, DictConfig):
        raise ConfigError(f"the config must be a mapping of sections, got {text.splitlines()[0]!r}")
    user = DictConfig(OmegaConf.merge(given, overlay))
    preset = user.pop("preset", None)
    if preset is not None:
        names = presets()
        if preset not in names:
            raise ConfigError(f"preset: got {preset!r}, allowed are {', '.join(names)}.{_nearest(str(preset), names)}")
        recipe = OmegaConf.create(resources.files("raypipe.recipes").joinpath(f"{preset}.yaml").read_text())
        user = DictConfig(OmegaConf.merge(recipe, user))
    values = OmegaConf.to_container(user, resolve=True)
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


def _swept(name: str, value: Any) -> Any:
    """A value of an outer sweep, with URIs made absolute here: trials may run elsewhere."""
    if isinstance(value, Mapping):
        return {part: _swept(part, of_part) for part, of_part in value.items()}
    if not isinstance(value, str):
        return value
    *path, option = name.split(".")
    return TypeAdapter(_fields(path)[option].rebuild_annotation()).validate_python(value)


def trial_config(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The config of one trial, which sweeps the walk alone.

    Args:
        config: the outer sweep's.
        changes: dotted names to values.

    Raises:
        ConfigError: as `load_config`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values = config.model_dump(mode="json")
    values["sweep"] |= {"training": {}}
    changed = OmegaConf.create(values)
    try:
        for name, value in changes.items():
            OmegaConf.update(changed, name, value)
        return RunConfig.model_validate(OmegaConf.to_container(changed))
    except OmegaConfBaseException as error:
        raise ConfigError(f"sweep.training: {error}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(f"sweep.training: {line}" for line in _explain(error))) from error


def to_yaml(config: BaseModel) -> str:
    """The config as YAML, every value spelled out."""
    from omegaconf import OmegaConf

    return str(OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json"))))


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
        match problem["type"]:
            case "extra_forbidden":
                allowed = list(_fields(path[:-1]))
                yield f"{name}: unknown name; allowed are {', '.join(allowed)}.{_nearest(path[-1], allowed)}"
            case "missing":
                yield f"{name}: missing; give it in the YAML file or as {name}=VALUE."
            case "literal_error":
                expected = str(problem.get("ctx", {}).get("expected", ""))
                choices = [choice.strip("' ") for choice in expected.replace(" or ", ",").split(",")]
                nearest = _nearest(str(problem["input"]), choices)
                yield f"{name}: got {problem['input']!r}, allowed are {expected}.{nearest}"
            case _:
                yield f"{name or 'config'}: got {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}."


def _fields(path: Sequence[str]) -> dict[str, FieldInfo]:
    """The options of a section, by the names that lead to it."""
    section: Any = RunConfig
    for part in path:
        section = section.model_fields[part].annotation
    fields: dict[str, FieldInfo] = section.model_fields
    return fields


def _nearest(name: str, choices: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, choices, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
