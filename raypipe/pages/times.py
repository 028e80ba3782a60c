"""What the streams of a run took, by the summaries that they left."""

import json
from collections.abc import Mapping
from typing import Any

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.outputs.records import RECORD_FILE, read_summary
from raypipe.pipelines.context import Context
from raypipe.pipelines.gate import gate_streams
from raypipe.pipelines.networks import given_checkpoint
from raypipe.pipelines.refit import refit_plan, refits
from raypipe.pipelines.saliency_maps import find_saliency


def stream_summaries(
    context: Context,
    outputs: Mapping[str, Artifact],
    *,
    maps: Artifact,
    affinity: Artifact | None,
    classifier: Artifact | None,
) -> dict[str, Mapping[str, Any]]:
    """The summaries of all streams that led to a run's outputs, by name, in the order in which they ran.

    Args:
        context: config and manifest.
        outputs: folders of outputs by the names of their streams.
        maps: as of `masks_plan`.
        affinity: as of `masks_plan`.
        classifier: that judges; None where there is none.
    """
    found: dict[str, Artifact | None] = {}
    if classifier is not None:
        if given_checkpoint(context, task="classifier") is None:
            found["saliency"] = find_saliency(context)
        found["labels"] = _labels(context, classifier)
        if refits(context):
            found["refit"] = refit_plan(context, classifier).artifact(context.config.out)
    if "seeds" in outputs:
        found["seeds"] = outputs["seeds"]
    decided, left = gate_streams(context, maps=maps, affinity=affinity, judge=classifier)
    for number, plan in enumerate([*decided, *left]):
        found["gate, without the walk" if number else "gate"] = plan.artifact(context.config.out)
    found |= outputs
    summaries = {name: read_summary(made.uri) for name, made in found.items() if made is not None}
    return {name: summary for name, summary in summaries.items() if summary is not None}


def _labels(context: Context, classifier: Artifact) -> Artifact | None:
    """The folder of the stream that has asked a classifier for labels; its plan depends on how that was trained."""
    folders = storage.list_folders(storage.join(context.config.out, "labels"))
    records = storage.read_many([storage.join(folder, RECORD_FILE) for folder in folders])
    for folder, record in zip(folders, records.values(), strict=True):
        stages = json.loads(record)["stages"] if isinstance(record, bytes) else []
        if any(stage.get("classifier") == classifier.digest for stage in stages):
            return Artifact(folder, "")
    return None
