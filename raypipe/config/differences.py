"""Options of configs by their dotted names, and what differs between two configs."""

import json
from collections.abc import Mapping
from typing import Any

_LONGEST = 60
"""Characters of a value that is shown."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names of options to their values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and f"{prefix}{name}" != "sweep.training":
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The options that differ between two configs, flat ones, as `walk.beta 8 → 4`.

    An option that only one of them has is another version's.
    """
    both = [name for name in new if name in old]
    return [f"{name} {shown(old[name])} → {shown(new[name])}" for name in both if old[name] != new[name]]


def shown(value: Any) -> str:
    """A value as it is written in a text."""
    if value is None:
        return "null"
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
