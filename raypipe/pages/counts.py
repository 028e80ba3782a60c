"""What a report counts over all rows, in flat memory: quarantined images by reason, labels by pair, confusions."""

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.shards import iter_shards
from raypipe.ops.cooccurrence import frequent_pairs, label_counts
from raypipe.outputs.ledger import QUARANTINED
from raypipe.pipelines.evaluate import read_confusions
from raypipe.reports.content import Confusion, LabelPairs, Quarantined
from raypipe.results import Score
from raypipe.schema import QUARANTINE

_ROWS_PER_STEP = 8192
_MAX_GROUPS = 30
_NUM_EXAMPLES = 3
_MAX_REASON = 300
_MAX_KINDS = 10_000
"""Kinds of reasons that are told apart while counting; a run with more of them has no reasons in common."""

OTHERS = "other reasons"


def count_quarantined(folders: Mapping[str, str]) -> list[Quarantined]:
    """Quarantined images of all stages by reason, the largest groups first; the last stands for all others.

    Args:
        folders: stage to URI.
    """
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for folder in folders.values():
        for _, table in iter_shards(storage.join(folder, QUARANTINED), columns=QUARANTINE.names):
            for row in table.to_pylist():
                stage, reason = row["stage"] or "", row["reason"] or ""
                kind = (stage, reason_kind(reason))
                if kind not in counts and len(counts) >= _MAX_KINDS:
                    kind = ("", OTHERS)
                counts[kind] += 1
                _, ids = examples.setdefault(kind, (_short(reason), []))
                if len(ids) < _NUM_EXAMPLES:
                    ids.append(_short(row["image_id"]))
    shown = heapq.nsmallest(_MAX_GROUPS, counts, key=lambda kind: (-counts[kind], kind))
    groups = [
        Quarantined(
            stage=kind[0],
            reason=OTHERS if kind[1] == OTHERS else examples[kind][0],
            num_images=counts[kind],
            image_ids=examples[kind][1],
        )
        for kind in shown
    ]
    if rest := counts.total() - sum(group.num_images for group in groups):
        groups.append(Quarantined(stage="", reason=OTHERS, num_images=rest, image_ids=[]))
    return groups


def reason_kind(reason: str) -> str:
    """A reason without what differs from image to image: quoted names, paths and numbers."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*", "*", reason)
    return re.sub(r"\d+(\.\d+)?", "#", text)[:_MAX_REASON]


def _short(text: str) -> str:
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"


def count_label_pairs(parts: Iterable[pa.ChunkedArray], classes: tuple[str, ...]) -> LabelPairs | None:
    """Classes that come together more often than by chance; None where no image has a label.

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
    if not counts.any():
        return None
    return LabelPairs(num_images=num_images, pairs=frequent_pairs(counts, num_images=num_images))


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
