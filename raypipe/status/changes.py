"""What differs between what would be made and what is there, in the words of the config: derived from the records.

An output's record holds all that it depends on. So nothing here lists which option changes what.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raypipe import storage
from raypipe.config import RunConfig
from raypipe.config.differences import flat, shown
from raypipe.outputs.records import RECORD_FILE

_DIGEST = re.compile("[0-9a-f]{12}")
"""What an output is known by, in the record of another one that was made of it."""

_OF_ROWS = ("rows", "validated_rows")
"""Fields of a training's record: digests of sets of rows."""


class Stage(str):
    """The name of a stage that only one of two records has."""

    __slots__ = ()


class Difference(NamedTuple):
    """A field of a record that isn't as it was."""

    path: tuple[str, ...]
    """Stages by the names of their classes."""
    old: Any
    new: Any


def earlier_folders(out: str, name: str) -> list[str]:
    """The folders of all outputs of a step, of whatever options."""
    return storage.list_folders(storage.join(out, name))


def nearest_differences(folders: Sequence[str], provenance: Mapping[str, Any]) -> list[Difference] | None:
    """What differs from the earlier output that differs least; None where there is none."""
    new = json.loads(json.dumps(provenance, default=str))
    records = storage.read_many([storage.join(folder, RECORD_FILE) for folder in folders])
    found = [list(differences(json.loads(each), new)) for each in records.values() if isinstance(each, bytes)]
    return min(found, key=len, default=None)


def differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[Difference]:
    """The fields of two records that differ; stages that both have are compared, wherever they stand."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), (*path, key))
    elif _are_stages(old) and _are_stages(new):
        before, after = _named(old), _named(new)
        for name in [*before, *(name for name in after if name not in before)]:
            if name in before and name in after:
                yield from differences(before[name], after[name], (*path, name))
            else:
                yield Difference((*path, name), *(Stage(name) if name in each else None for each in (before, after)))
    elif old != new:
        yield Difference(path, old, new)


def _are_stages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) and "class" in each for each in value)


def _named(stages: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By their classes; of one class that comes twice, the second one has a number."""
    named: dict[str, dict[str, Any]] = {}
    for stage in stages:
        name = stage["class"]
        named[name if name not in named else f"{name} {len(named)}"] = stage
    return named


@dataclass(frozen=True)
class Words:
    """Why an output isn't that which is there."""

    options: list[str]
    """Of the config, as `walk.beta 8 → 4`."""
    others: list[str]
    """Inputs that are others now, and stages that have come or gone."""

    def __str__(self) -> str:
        return "; ".join([*self.options, *self.others])


def in_words(
    found: Sequence[Difference], config: RunConfig, *, task: str | None = None, last: Mapping[str, Any] | None = None
) -> Words:
    """Differences in the words of the config.

    Args:
        found: the differences.
        config: as it is now.
        task: the network's, for the record of a training.
        last: options of the last run by their dotted names; what they were is what has changed.
    """
    options = flat(config.model_dump(mode="json"))
    named: dict[str, str] = {}
    others: dict[str, None] = {}
    bare: dict[tuple[str, str], None] = {}
    listed = any(path[-1] == "classes" for path, _, _ in found)
    for path, old, new in found:
        if listed and path[-1] == "num_classes":
            continue  # the lists say it
        name = _option(path, new, options, task)
        if path[0] in _OF_ROWS:
            others["other images to learn from"] = None
        elif isinstance(old, Stage) or isinstance(new, Stage):
            others[f"with {new}" if isinstance(new, Stage) else f"without {old}"] = None
        elif _is_digest(old) and _is_digest(new):
            others[f"another {path[-1]}"] = None
        elif name is None:
            bare[path[-1], f"{shown(old)} → {shown(new)}"] = None
        else:
            before = (last or {}).get(name, old)
            named[name] = f"{shown(old if before == new else before)} → {shown(new)}"
    # A record may hold an option twice, once where no name can be told.
    told = {(name.rsplit(".", 1)[-1], change) for name, change in named.items()}
    texts = [f"{name} {change}" for name, change in named.items()]
    return Words(texts + [f"{name} {change}" for name, change in bare if (name, change) not in told], list(others))


def _option(path: tuple[str, ...], value: Any, options: Mapping[str, Any], task: str | None) -> str | None:
    """The option of the config that a field of a record holds: that of the longest common end, if there is one."""
    if task is not None and path[:2] == ("training", "section"):
        path = (task, *path[2:])
    for length in range(len(path), 0, -1):
        tail = f".{'.'.join(path[-length:])}"
        found = [name for name, held in options.items() if f".{name}".endswith(tail) and held == value]
        if task is not None and len(found) > 1:
            found = [name for name in found if name.startswith(f"{task}.")]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
