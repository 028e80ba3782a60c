"""What a report counts over all rows, in flat memory: quarantined images by reason, labels, walks, confusions."""

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config.stages import Walk
from raypipe.data.shards import iter_shards, read_shards
from raypipe.faults import sentence
from raypipe.ops.cooccurrence import frequent_pairs, label_counts
from raypipe.outputs.ledger import QUARANTINED, SHARDS
from raypipe.pipelines.evaluate import read_confusions
from raypipe.reports.content import Confusion, LabelPairs, OwnWalks, Quarantined
from raypipe.results import Score
from raypipe.schema import QUARANTINE
from raypipe.uri import name_of, parent

_ROWS_PER_STEP = 8192
_MAX_GROUPS = 30
_NUM_EXAMPLES = 3
_MAX_REASON = 300
_MAX_KINDS = 10_000
"""Kinds of reasons that are told apart while counting; a run with more of them has no reasons in common."""

OTHERS = "other reasons"


class Reasons:
    """Rows in quarantine by stage and kind of reason, with a few examples of each."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], tuple[str, list[str]]] = {}

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Counts rows of `schema.QUARANTINE`."""
        for row in rows:
            reason = sentence(row["reason"] or "")
            self._add((row["stage"] or "", reason_kind(reason)), 1, _short(reason), [_short(row["image_id"])])

    def merge(self, other: "Reasons") -> None:
        """Adds what was counted of other rows."""
        for kind, number in other.counts.items():
            self._add(kind, number, *other._examples[kind])

    def _add(self, kind: tuple[str, str], number: int, reason: str, image_ids: list[str]) -> None:
        if kind not in self.counts and len(self.counts) >= _MAX_KINDS:
            kind = ("", OTHERS)
        self.counts[kind] += number
        _, known = self._examples.setdefault(kind, (reason, []))
        known += image_ids[: _NUM_EXAMPLES - len(known)]

    def groups(self, most: int = _MAX_GROUPS) -> list[Quarantined]:
        """The largest groups first; the last stands for all that are left."""
        shown = heapq.nsmallest(most, self.counts, key=lambda kind: (-self.counts[kind], kind))
        groups = [
            Quarantined(
                stage=kind[0],
                reason=OTHERS if kind[1] == OTHERS else self._examples[kind][0],
                num_images=self.counts[kind],
                image_ids=self._examples[kind][1],
            )
            for kind in shown
        ]
        if rest := self.counts.total() - sum(group.num_images for group in groups):
            groups.append(Quarantined(stage="", reason=OTHERS, num_images=rest, image_ids=[]))
        return groups


def count_quarantined(folders: Mapping[str, str]) -> list[Quarantined]:
    """Quarantined images of all stages by reason, the largest groups first; the last stands for all others.

    An image that several stages have in quarantine, as each takes what the one before couldn't do, counts once.

    Args:
        folders: stage to URI, in the order of the stages.
    """
    found: dict[str, list[str]] = {}
    for folder in folders.values():
        for uri in storage.list_files(storage.join(folder, QUARANTINED), suffix=".parquet"):
            of_part = found.setdefault(name_of(parent(uri)), [])
            if parent(uri) not in of_part:
                of_part.append(parent(uri))
    reasons = Reasons()
    for part_folders in found.values():  # part by part: ids of one are in memory, never all
        seen: dict[str, dict[str, Any]] = {}
        for folder in part_folders:
            rows = read_shards(folder, columns=QUARANTINE.names, schema=QUARANTINE).to_pylist()
            seen = {row["image_id"]: row for row in rows} | seen
        reasons.add(seen.values())
    return reasons.groups()


def reason_kind(reason: str) -> str:
    """A reason without what differs from image to image: quoted names, paths and numbers."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*", "*", reason)
    return re.sub(r"\d+(\.\d+)?", "#", text)[:_MAX_REASON]


def _short(text: str) -> str:
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"


def count_labels(
    parts: Iterable[pa.ChunkedArray], classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], LabelPairs | None]:
    """Images by class (C), and classes that come together more often than by chance: None where no image has a label.

    Args:
        parts: the manifest's labels, part by part; null is not labelled and doesn't count, and unknown names are
            passed over.
        classes: in the order of the class ids.
    """
    counts, num_images = np.zeros((len(classes), len(classes)), np.int64), 0
    known = pa.array(classes, pa.string())
    slices = (
        labels.slice(start, _ROWS_PER_STEP) for labels in parts for start in range(0, len(labels), _ROWS_PER_STEP)
    )
    for some in (each.drop_null().combine_chunks() for each in slices):
        present = np.zeros((len(some), len(classes)), bool)
        index = pc.index_in(pc.list_flatten(some), known)
        rows = pc.list_parent_indices(some).filter(pc.is_valid(index)).to_numpy()
        present[rows, index.drop_null().to_numpy()] = True
        counts += label_counts(present)
        num_images += len(some)
    pairs = LabelPairs(num_images=num_images, pairs=frequent_pairs(counts, num_images=num_images))
    return np.diagonal(counts), pairs if counts.any() else None


def count_walks(masks: str, walk: Walk) -> OwnWalks | None:
    """Images that took another walk than the run's; None if none did.

    Args:
        masks: folder of masks.
        walk: the run's.
    """
    taken: Counter[tuple[float, int]] = Counter()
    for _, table in iter_shards(storage.join(masks, SHARDS), columns=["walk_alpha", "walk_steps"]):
        known = table.filter(pc.is_valid(table["walk_steps"]))
        taken.update(zip(known["walk_alpha"].to_pylist(), known["walk_steps"].to_pylist(), strict=True))
    run = float(np.float32(walk.alpha)), walk.num_steps
    if taken.keys() <= {run}:
        return None
    return OwnWalks(
        alpha=walk.alpha,
        num_steps=walk.num_steps,
        num_images=taken.total(),
        num_others=taken.total() - taken[run],
        num_smaller_alpha=sum(number for (alpha, _), number in taken.items() if alpha < run[0]),
        num_shorter=sum(number for (_, steps), number in taken.items() if steps < run[1]),
        num_longer=sum(number for (_, steps), number in taken.items() if steps > run[1]),
    )


def final_confusions(evaluation: Artifact | None, scores: list[Score]) -> list[Confusion]:
    """Confusions of each split's last stage; none where nothing was scored, or by an older version.

    Args:
        evaluation: folder of the evaluation.
        scores: its rows, CAMs first.
    """
    if evaluation is None:
        return []
    last = {score.split: score.stage for score in scores}
    matrices = read_confusions(evaluation.uri)
    return [
        Confusion(stage=stage, split=split, matrix=matrices[stage, split])
        for split, stage in last.items()
        if (stage, split) in matrices
    ]
