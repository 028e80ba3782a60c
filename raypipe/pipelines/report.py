"""Collects what a report shows: scores, curves, a few images with everything that led to their masks."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

import raypipe
from raypipe import storage
from raypipe.config import to_yaml
from raypipe.data.arrays import decode_cam
from raypipe.data.checkpoints import Task, read_metadata
from raypipe.data.images import decode_image, decode_mask
from raypipe.data.shards import read_rows, read_shards
from raypipe.pipelines.context import Context
from raypipe.pipelines.gate import Decision
from raypipe.pipelines.records import read_summary
from raypipe.pipelines.results import Score
from raypipe.pipelines.saliency_samples import saliency_samples
from raypipe.pipelines.sink import QUARANTINED, SHARDS
from raypipe.reports.html import Report, Sample, render_report
from raypipe.schema import MASKS, QUARANTINE, SEEDS
from raypipe.stages.base import ROW_ERRORS
from raypipe.stages.propagate import AffinitySource, affinity_source
from raypipe.training.run import read_metrics

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
_NUM_QUARANTINE_ROWS = 100


def write_report(
    context: Context,
    *,
    seeds: str,
    masks: str,
    segments: str | None,
    networks: Mapping[Task, str],
    scores: Sequence[Score],
    decisions: Sequence[Decision],
) -> str:
    """Writes the HTML report of a run; its URI.

    Args:
        context: config and manifest.
        seeds: folder of seeds; may be missing where the maps were computed in the masks' stream.
        masks: folder of masks.
        segments: folder of the segmentation network's masks, if there are any.
        networks: task to checkpoint URI.
        scores: none where there are no true masks.
        decisions: of the gates.
    """
    config = context.config
    folders = {"seeds": seeds, "masks": masks} | ({} if segments is None else {"segments": segments})
    summaries = {name: read_summary(folder) for name, folder in folders.items()}
    quarantine = [
        row
        for folder in folders.values()
        for row in read_shards(storage.join(folder, QUARANTINED), schema=QUARANTINE).to_pylist()
    ]
    report = Report(
        title="raypipe report",
        classes=context.classes,
        scores=[asdict(score) for score in scores],
        gate=config.refinement.gate,
        decisions=[asdict(decision) for decision in decisions],
        curves={name: read_metrics(uri.rsplit("/", 1)[0]) for name, uri in networks.items()},
        samples=collect_samples(context, folders, affinity=networks.get("affinity"), scores=scores),
        saliency=saliency_samples(context, classifier=networks["classifier"]) if "classifier" in networks else (),
        streams={name: summary for name, summary in summaries.items() if summary is not None},
        quarantine=quarantine[:_NUM_QUARANTINE_ROWS],
        provenance={
            "config": to_yaml(config),
            "raypipe": raypipe.__version__,
            **{str(name): read_metadata(uri, task=name)["digest"] for name, uri in networks.items()},
        },
    )
    uri = storage.join(config.out, REPORT_FILE)
    storage.write_bytes_atomic(uri, render_report(report).encode())
    return uri


def collect_samples(
    context: Context, folders: Mapping[str, str], *, affinity: str | None, scores: Sequence[Score]
) -> list[Sample]:
    """Best, worst and random images, with maps, affinities, masks and truth, from the stages' folders."""
    config = context.config
    chosen = choose_samples(context, masks=folders["masks"], scores=scores)
    image_ids = [image_id for image_id, _, _ in chosen]
    manifest = {row["image_id"]: row for row in context.rows(None).to_pylist() if row["image_id"] in set(image_ids)}
    rows = {
        stage: read_rows(storage.join(folder, SHARDS), image_ids, schema=SEEDS if stage == "seeds" else MASKS)
        for stage, folder in folders.items()
    }
    source = affinity_source(config.walk.affinity, checkpoint=affinity)
    return [
        _sample(
            context,
            manifest[image_id],
            {stage: found.get(image_id) for stage, found in rows.items()},
            kind,
            score,
            source,
        )
        for image_id, kind, score in chosen
        if image_id in rows["masks"]
    ]


def choose_samples(context: Context, *, masks: str, scores: Sequence[Score]) -> list[tuple[str, str, float | None]]:
    """(image_id, best | worst | random, IoU or None), each image once; random ones are the same in every run."""
    number = context.config.report.num_samples
    final = {image_id: iou for score in scores[-1:] for image_id, iou in score.image_iou.items()}
    ranked = sorted(final, key=lambda image_id: (final[image_id], image_id))
    chosen: dict[str, str] = {}
    for kind, candidates in (("best", ranked[::-1][:number]), ("worst", ranked[:number])):
        for image_id in candidates:
            chosen.setdefault(image_id, kind)
    columns = read_shards(storage.join(masks, SHARDS), columns=["image_id"], schema=MASKS)
    others = [image_id for image_id in columns["image_id"].to_pylist() if image_id not in chosen]
    for image_id in random.Random(0).sample(others, min(number, len(others))):  # noqa: S311 - a choice of pictures
        chosen[image_id] = "random"
    return [(image_id, kind, final.get(image_id)) for image_id, kind in chosen.items()]


def _sample(
    context: Context,
    row: dict[str, Any],
    found: Mapping[str, dict[str, Any] | None],
    kind: str,
    score: float | None,
    source: AffinitySource,
) -> Sample:
    pixels = decode_image(storage.read_bytes(row["image_uri"]), max_side=context.config.images.max_side).pixels
    seed, mask, segment = found["seeds"], found["masks"], found.get("segments")
    assert mask is not None  # samples have one
    final = decode_mask(mask["mask"])
    walk = decode_mask(mask["walk_mask"]) if mask["walk_mask"] is not None else None
    return Sample(
        image_id=row["image_id"],
        kind=kind,
        labels=tuple(row["labels"]),
        pixels=pixels,
        class_ids=tuple(seed["class_ids"]) if seed else (),
        cam=decode_cam(seed["cam"], height=seed["cam_height"], width=seed["cam_width"])
        if seed
        else np.zeros((0, 1, 1), np.float32),
        affinity=source([pixels])[0].affinity(radius=context.config.walk_radius).cpu().numpy(),
        walk_mask=final if walk is None else walk,
        mask=None if walk is None else final,
        segment=None if segment is None else decode_mask(segment["mask"]),
        truth=_truth(row["mask_uri"]),
        iou=score,
    )


def _truth(mask_uri: str | None) -> NDArray[np.uint8] | None:
    """The true mask; None for one that can't be used, which the scores count as unscored."""
    if not mask_uri:
        return None
    try:
        return decode_mask(storage.read_bytes(mask_uri))
    except ROW_ERRORS as error:
        logger.warning("no true mask in the report: %s", error)
        return None
