"""The images that a report shows: best, worst and random ones, each with everything that led to its mask.

Whatever the number of rows: ids are read shard by shard, and of the shards only the chosen rows, one image at a time.
"""

import heapq
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.arrays import decode_cam
from raypipe.data.rows import Rows
from raypipe.data.scenes import read_image
from raypipe.faults import ROW_ERRORS
from raypipe.outputs.load import held
from raypipe.pages.shown import shown_mask
from raypipe.pages.truth import usable_truth
from raypipe.pipelines.context import Context
from raypipe.pipelines.sample_maps import run_sample_maps
from raypipe.pipelines.tally import read_image_scores
from raypipe.reports.content import KINDS, Sample
from raypipe.results import Score
from raypipe.schema import MASKS, SEEDS, columns
from raypipe.stages.cells import AffinitySource, affinity_source
from raypipe.streams.collect import collect, draw, drawn_ids, outputs_of, with_ids

logger = logging.getLogger(__name__)

_COLUMNS = {
    "seeds": columns(SEEDS, "image_id", "class_ids", "cam", "cam_height", "cam_width"),
    "masks": columns(MASKS, "image_id", "height", "width", "mask", "walk_mask"),
    "segments": columns(MASKS, "image_id", "height", "width", "mask"),
}


def collect_samples(
    context: Context,
    outputs: Mapping[str, Artifact],
    *,
    maps: Artifact,
    affinity: Artifact | None,
    evaluation: Artifact | None,
    scores: Sequence[Score],
    num_samples: int,
) -> Iterator[Sample]:
    """Best, worst and random images in turns, read one by one.

    Args:
        context: config and manifest.
        outputs: folders of `masks`, of `segments` where they are, and of `seeds`: where these were never written, since
            the masks' stream computed the maps, the samples' maps are computed now.
        maps: as of `masks_plan`.
        affinity: the AffinityNet; None with `walk.affinity=rgb`.
        evaluation: folder of the scores; None where there are none.
        scores: those of the last stage rank the images.
        num_samples: of each kind.
    """
    everything = context.rows(None)
    masked = held(everything, outputs["masks"])
    chosen = choose_samples(masked, evaluation=evaluation, scores=scores, number=num_samples)
    if not chosen:
        return
    rows = with_ids(everything, [image_id for image_id, _, _ in chosen])
    manifest = {row["image_id"]: row for row in collect(rows).to_pylist()}
    if "seeds" in outputs and not storage.exists(outputs["seeds"].uri):
        outputs = {**outputs, "seeds": run_sample_maps(context, rows, maps=maps)}
    found = {
        stage: {row["image_id"]: row for row in outputs_of(folder, rows, _COLUMNS[stage]).to_pylist()}
        for stage, folder in outputs.items()
    }
    source = affinity_source(affinity, precision=context.config.precision, device="cpu")
    for image_id, kind, score in chosen:
        of_image = {stage: by_id.get(image_id) for stage, by_id in found.items()}
        try:
            yield _sample(context, manifest[image_id], of_image, kind, score, source)
        except ROW_ERRORS as error:  # such as a photograph that was deleted when its mask was made
            logger.warning("no sample of %s on the page: %s", image_id, error)


def choose_samples(
    masked: Rows, *, evaluation: Artifact | None, scores: Sequence[Score], number: int
) -> list[tuple[str, str, float | None]]:
    """(image_id, best | worst | random, IoU or None), each image once, kinds in turns; all have a mask.

    Random ones are those whose ids have the least hashes: the same in every run, however they come.

    Args:
        masked: rows that have a mask.
        evaluation: as of `collect_samples`.
        scores: as of `collect_samples`.
        number: of each kind.
    """
    last = read_image_scores(evaluation.uri, stage=scores[-1].stage) if evaluation and scores else iter(())
    pairs = ((row["mean_iou"], row["image_id"]) for table in last for row in table.to_pylist())
    best, worst = _extremes(pairs, number)
    final = {image_id: iou for iou, image_id in (*best, *worst)}
    others = [name for names in drawn_ids(masked, 3 * number).values() for name in names]
    others = [others[index] for index in draw(others, None) if others[index] not in final][:number]
    ranked = [[image_id for _, image_id in group] for group in (best, worst)]
    kind_of: dict[str, str] = {}
    for turn in zip_longest(*ranked, others):
        for kind, candidate in zip(KINDS, turn, strict=True):
            if candidate is not None:
                kind_of.setdefault(candidate, kind)
    there = set(collect(with_ids(masked, list(kind_of)).select(["image_id"]))["image_id"].to_pylist())
    return [(image_id, kind, final.get(image_id)) for image_id, kind in kind_of.items() if image_id in there]


def _extremes(
    pairs: Iterator[tuple[float, str]], number: int
) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """The largest, the largest first, and the smallest, the smallest first."""
    best: list[tuple[float, str]] = []
    worst: list[tuple[float, str]] = []
    while some := list(islice(pairs, 10_000)):
        best = heapq.nlargest(number, [*best, *some])
        worst = heapq.nsmallest(number, [*worst, *some])
    return best, worst


def _sample(
    context: Context,
    row: dict[str, Any],
    found: Mapping[str, dict[str, Any] | None],
    kind: str,
    score: float | None,
    source: AffinitySource,
) -> Sample:
    images = context.config.images
    pixels = read_image(row["image_uri"], images).pixels
    seed, mask, segment = found.get("seeds"), found["masks"], found.get("segments")
    assert mask is not None  # samples have one
    final = shown_mask(mask, images)
    walk = None if mask["walk_mask"] is None else shown_mask(mask, images, column="walk_mask")
    cam = decode_cam(seed["cam"], height=seed["cam_height"], width=seed["cam_width"]) if seed else None
    return Sample(
        image_id=row["image_id"],
        kind=kind,
        labels=tuple(row["labels"] or ()),
        pixels=pixels,
        class_ids=tuple(seed["class_ids"]) if seed else (),
        cam=cam,
        affinity=source([pixels])[0].affinity(radius=context.config.radius).cpu().numpy(),
        walk_mask=final if walk is None else walk,
        mask=None if walk is None else final,
        segment=None if segment is None else shown_mask(segment, images),
        truth=usable_truth(row, context.classes, size=(mask["height"], mask["width"])),
        iou=score,
    )
