"""The images that a report shows: best, worst and random ones, each with everything that led to its mask.

Whatever the number of rows: ids are read shard by shard, and of the shards only the chosen rows, one image at a time.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.arrays import decode_cam
from raypipe.data.images import decode_image, decode_mask
from raypipe.data.shards import iter_shards, locate_rows, read_row
from raypipe.pages.truth import usable_truth
from raypipe.pipelines.context import Context
from raypipe.reports.content import KINDS, Sample
from raypipe.results import Score
from raypipe.stages.propagate import AffinitySource, affinity_source
from raypipe.streams.sink import SHARDS

_COLUMNS = {
    "seeds": ("class_ids", "cam", "cam_height", "cam_width"),
    "masks": ("mask", "walk_mask"),
    "segments": ("mask",),
}

_NO_CAM = np.zeros((0, 1, 1), np.float32)


def collect_samples(
    context: Context,
    folders: Mapping[str, str],
    *,
    affinity: Artifact | None,
    scores: Sequence[Score],
    num_samples: int,
) -> Iterator[Sample]:
    """Best, worst and random images in turns, read one by one.

    Args:
        context: config and manifest.
        folders: `masks`, and `seeds` and `segments` where they are, to URIs.
        affinity: the AffinityNet; None with `walk.affinity=rgb`.
        scores: those of the last stage rank the images.
        num_samples: of each kind.
    """
    chosen = choose_samples(masks=folders["masks"], scores=scores, number=num_samples)
    if not chosen:
        return
    ids = [image_id for image_id, _, _ in chosen]
    places = {stage: locate_rows(storage.join(folder, SHARDS), ids) for stage, folder in folders.items()}
    table = context.manifest.table
    rows = table.filter(pc.is_in(table["image_id"], pa.array(ids, pa.string()))).to_pylist()
    manifest = {row["image_id"]: row for row in rows}
    source = affinity_source(affinity, precision=context.config.precision, device="cpu")
    for image_id, kind, score in chosen:
        found = {
            stage: read_row(uris[image_id], image_id, columns=_COLUMNS[stage]) if image_id in uris else None
            for stage, uris in places.items()
        }
        yield _sample(context, manifest[image_id], found, kind, score, source)


def choose_samples(*, masks: str, scores: Sequence[Score], number: int) -> list[tuple[str, str, float | None]]:
    """(image_id, best | worst | random, IoU or None), each image once, kinds in turns; all have a mask.

    Random ones are those whose ids have the least hashes: the same in every run, in whatever order shards come.
    """
    last = [score for score in scores if score.stage == scores[-1].stage]
    final = {image_id: iou for score in last for image_id, iou in score.image_iou.items()}
    ranked = sorted(final, key=lambda image_id: (final[image_id], image_id))
    best, worst = ranked[::-1][:number], ranked[:number]
    there: set[str] = set()

    def ids() -> Iterator[tuple[str, str]]:
        wanted = {*best, *worst}
        for _, table in iter_shards(storage.join(masks, SHARDS), columns=["image_id"]):
            for image_id in table["image_id"].to_pylist():
                if image_id in wanted:
                    there.add(image_id)
                else:
                    yield storage.digest(image_id), image_id

    others = [image_id for _, image_id in heapq.nsmallest(number, ids())]
    kind_of: dict[str, str] = {}
    for turn in zip_longest(best, worst, others):
        for kind, candidate in zip(KINDS, turn, strict=True):
            if candidate is not None and (kind == "random" or candidate in there):
                kind_of.setdefault(candidate, kind)
    return [(image_id, kind, final.get(image_id)) for image_id, kind in kind_of.items()]


def _sample(
    context: Context,
    row: dict[str, Any],
    found: Mapping[str, dict[str, Any] | None],
    kind: str,
    score: float | None,
    source: AffinitySource,
) -> Sample:
    pixels = decode_image(storage.read_bytes(row["image_uri"]), max_side=context.config.images.max_side).pixels
    seed, mask, segment = found.get("seeds"), found["masks"], found.get("segments")
    assert mask is not None  # samples have one
    final = decode_mask(mask["mask"])
    walk = None if mask["walk_mask"] is None else decode_mask(mask["walk_mask"])
    cam = decode_cam(seed["cam"], height=seed["cam_height"], width=seed["cam_width"]) if seed else _NO_CAM
    return Sample(
        image_id=row["image_id"],
        kind=kind,
        labels=tuple(row["labels"] or ()),
        pixels=pixels,
        class_ids=tuple(seed["class_ids"]) if seed else (),
        cam=cam,
        affinity=source([pixels])[0].affinity(radius=context.config.affinity.radius).cpu().numpy(),
        walk_mask=final if walk is None else walk,
        mask=None if walk is None else final,
        segment=None if segment is None else decode_mask(segment["mask"]),
        truth=usable_truth(row["mask_uri"], context.classes),
        iou=score,
    )
