"""What benchmarks of trained networks share: the steps of a config, its networks, images as networks take them."""

from collections.abc import Sequence
from typing import Any

from raypipe.artifacts import Artifact
from raypipe.cluster.connect import connect
from raypipe.config import RunConfig
from raypipe.pages.finished import find_masks
from raypipe.pipelines.context import Context
from raypipe.pipelines.networks import given_checkpoint
from raypipe.pipelines.steps import decode_images, fetch_images
from raypipe.run import Run, open_run
from raypipe.stages.base import Row


def connect_run(config: RunConfig) -> Run:
    """The steps of a config, with Ray connected."""
    connect(config.cluster)
    return open_run(config)


def with_values(config: RunConfig, **values: Any) -> RunConfig:
    """The config with other values; a mapping changes some of a section."""
    old = config.model_dump()
    new = {name: old[name] | value if isinstance(value, dict) else value for name, value in values.items()}
    return RunConfig.model_validate(old | new)


def find_networks(context: Context) -> tuple[Artifact, Artifact]:
    """Classifier and AffinityNet that a config names in `checkpoints`, or that its finished run has trained.

    Raises:
        ValueError: if one is missing.
    """
    classifier, affinity = (given_checkpoint(context, task=task) for task in ("classifier", "affinity"))
    if classifier is None or affinity is None:
        found = find_masks(context)
        classifier, affinity = found.maps, found.affinity
    if affinity is None:
        raise ValueError("walk.affinity=rgb has no AffinityNet; give the config of a run that has one")
    return classifier, affinity


def read_images(context: Context, rows: Sequence[Row]) -> list[Row]:
    """Manifest rows with their images, decoded as the networks' stages take them.

    Raises:
        RuntimeError: if one can't be read.
    """
    done = decode_images(context).process_all(fetch_images(context).process_all(rows))
    for row in done:
        if row.get("error_reason"):
            raise RuntimeError(f"{row['image_id']}: {row['error_reason']}")
    return done
