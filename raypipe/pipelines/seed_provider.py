"""Finds the stage that `--seeds NAME` names: code that makes maps and isn't part of raypipe.

A name comes from the command line alone: a config chooses what is read and written, not what is run.
"""

import importlib
import inspect
import sys
from dataclasses import dataclass, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.data.manifest import nearest
from raypipe.schema import GIVEN_SEEDS
from raypipe.stages.base import Stage

GROUP = "raypipe.seeds"
"""Of entry points: an installed package says `[project.entry-points."raypipe.seeds"]`, `name = "module:Class"`."""


@dataclass(frozen=True)
class SeedProvider:
    """A stage that writes `schema.GIVEN_SEEDS`, and what tells its code from any other."""

    name: str
    version: str
    stage: Stage

    @property
    def artifact(self) -> Artifact:
        """What its maps are known by."""
        return Artifact(self.name, digest([self.name, self.version, self.stage]))


def find_provider(name: str) -> SeedProvider:
    """The provider of a name.

    Args:
        name: of an entry point of `GROUP` in an installed package, whose version counts as the code's; or
            `module:Class`, the module installed or in the working directory, whose source does.

    Raises:
        ValueError: there is none, or it isn't a stage that can make seeds.
    """
    if ":" not in name:
        entry = _entry_point(name)
        return SeedProvider(name, entry.dist.version if entry.dist else "", _made(name, _loaded(name, entry)))
    module_name, _, class_name = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"--seeds {name}: {module_name} can't be imported ({error}): install it, or give the command where "
            f"{module_name.split('.')[0]}.py lies"
        ) from error
    if not hasattr(module, class_name):
        raise ValueError(f"--seeds {name}: {module_name} has no {class_name}{nearest(class_name, dir(module))}")
    stage = _made(name, getattr(module, class_name))
    _send_along(module)
    return SeedProvider(name, storage.bytes_digest(_source(name, module)), stage)


def _entry_point(name: str) -> EntryPoint:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        known = nearest(name, sorted(found)) if found else f": no installed package has an entry point of {GROUP}"
        raise ValueError(f"--seeds {name} is no provider{known}. A module's class is named as module:Class")
    return found[name]


def _loaded(name: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--seeds {name}: {entry.value} can't be imported ({error}): install its package") from error


def _source(name: str, module: ModuleType) -> bytes:
    try:
        return inspect.getsource(module).encode()
    except (OSError, TypeError) as error:
        raise ValueError(
            f"--seeds {name}: {module.__name__} has no source, so one version couldn't be told from another: make an "
            f"entry point of {GROUP} in its package"
        ) from error


def _made(name: str, found: Any) -> Stage:
    """An instance of a provider's class.

    Raises:
        ValueError: it is no stage, or none that can make seeds.
    """
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise ValueError(  # noqa: TRY004 - what was typed is wrong
            f"--seeds {name} is {found!r}, needed is a subclass of raypipe.stages.base.Stage"
        )
    if not is_dataclass(found):
        raise ValueError(f"--seeds {name} is no dataclass, needed is one: its fields are part of what its maps are")
    try:
        stage: Stage = found()
        digest(stage)
    except TypeError as error:
        raise ValueError(f"--seeds {name}: {error}; needed is a class whose fields all have plain defaults") from error
    if {field.name: field.type for field in stage.writes} != {field.name: field.type for field in GIVEN_SEEDS}:
        raise ValueError(
            f"--seeds {name} writes {stage.writes.names}, needed are the columns of raypipe.schema.GIVEN_SEEDS, "
            f"{GIVEN_SEEDS.names}: say writes = GIVEN_SEEDS, and return raypipe.data.given_seeds.encode_seed(maps)"
        )
    return stage


def _send_along(module: ModuleType) -> None:
    """Makes Ray send the module's classes themselves: workers needn't have it."""
    import ray  # takes seconds

    ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
