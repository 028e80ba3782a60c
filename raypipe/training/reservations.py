"""Frees the room that a lost controller of Ray Train had reserved for its workers.

Ray's own cleaner, an actor, frees what the controller has told it of. A controller that is lost moments after it has
reserved its placement group hasn't, and the room would be taken until the driver ends: where there is none beside it,
the next attempt would wait for ever. No list of placement groups says whose they are, so each training marks its own.
"""

import random
from dataclasses import replace
from typing import Any

from ray import PlacementGroupID
from ray.train import ScalingConfig
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

_LEAST = 2**20
"""Bytes of memory that a worker reserves at least as its mark: nothing, beside what it needs."""


def mark(scaling: ScalingConfig) -> tuple[ScalingConfig, int]:
    """Returns the config of a training whose workers reserve so many bytes as no other's do, and that number."""
    number = _LEAST + random.SystemRandom().randrange(_LEAST)
    needs: dict[str, Any] = dict(scaling.resources_per_worker or {})  # type: ignore[arg-type] # Tune's domains
    return replace(scaling, resources_per_worker=needs | {"memory": number}), number


def free(number: int) -> int:
    """Removes the placement groups of a training that has no controller; returns how many there were."""
    left = [
        name
        for name, group in placement_group_table().items()
        if group["state"] != "REMOVED" and any(bundle.get("memory") == number for bundle in group["bundles"].values())
    ]
    for name in left:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
    return len(left)
