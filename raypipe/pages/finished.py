"""Finds what a run has made, by the digests that it would give it; computes nothing and needs no Ray."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from raypipe import storage
from raypipe.data.checkpoints import METADATA_FILE, read_metadata
from raypipe.pipelines.context import Context
from raypipe.pipelines.gate import Decision, read_gates
from raypipe.pipelines.masks import masks_stream
from raypipe.pipelines.seeds import given_cams, seeds_stream
from raypipe.pipelines.train import given_checkpoint
from raypipe.streams.records import RECORD_FILE
from raypipe.training.trainer import CHECKPOINT


class NotFinished(ValueError):  # noqa: N818 - a state, not a mistake
    """A run that hasn't made yet what is asked for."""


@dataclass(frozen=True)
class Network:
    """A checkpoint."""

    uri: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class FinishedMasks:
    """A run's masks and what made them."""

    context: Context
    """Its config lacks what the gates rejected."""
    decisions: list[Decision]
    classifier: Network
    """The folder of given maps where checkpoints.cams names one."""
    affinity: Network | None
    """None where the walk goes along plain colours."""
    seeds: str
    """Folder; may be missing where the maps were computed in the masks' stream."""
    masks: str


def find_masks(context: Context) -> FinishedMasks:
    """The masks of a config.

    Raises:
        NotFinished: if there are none, with what to run first.
    """
    config = context.config
    missing = "classifier"
    given = given_cams(context)
    for classifier in [Network(*given)] if given else _networks(context, "classifier"):
        missing = "AffinityNet"
        for affinity in [None] if config.walk.affinity == "rgb" else _networks(context, "affinity"):
            missing = "masks"
            affinity_digest = None if affinity is None else affinity.digest
            gated = read_gates(context, classifier_digest=classifier.digest, affinity_digest=affinity_digest)
            stream = masks_stream(gated.context, classifier_digest=classifier.digest, affinity_digest=affinity_digest)
            if storage.exists(stream.folder):
                return FinishedMasks(
                    context=gated.context,
                    decisions=gated.decisions,
                    classifier=classifier,
                    affinity=affinity,
                    seeds=seeds_stream(context, classifier_digest=classifier.digest).folder,
                    masks=stream.folder,
                )
    raise NotFinished(
        f"{config.out} has no {missing} of this config; `raypipe masks CONFIG` makes the masks and all that they need"
    )


def _networks(context: Context, task: Literal["classifier", "affinity"]) -> Iterator[Network]:
    """The given checkpoint, or those that were trained with the config's settings."""
    if given := given_checkpoint(context, task=task):
        yield Network(*given)
        return
    config = context.config
    settings = {"training": config.training(task).model_dump(mode="json"), "images": config.images.model_dump()}
    for metadata_uri in storage.list_files(storage.join(config.out, task), suffix=f"/{CHECKPOINT}/{METADATA_FILE}"):
        uri = metadata_uri.rsplit("/", 1)[0]
        record = json.loads(storage.read_bytes(storage.join(uri.rsplit("/", 1)[0], RECORD_FILE)))
        if record["config"] == settings:
            yield Network(uri, read_metadata(uri, task=task)["digest"])
