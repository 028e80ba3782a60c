"""The segmentation network: trained on pseudo-masks and true masks, then used on any images of a manifest."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.data.rows import Part, Rows
from raypipe.outputs.load import held
from raypipe.pipelines.context import Context
from raypipe.pipelines.learned_rows import draw_to_learn
from raypipe.pipelines.networks import NetworkPlan, crop_options, network_options, run_training
from raypipe.pipelines.steps import decode_images, encode_masks, fetching, refining, segment_images
from raypipe.results import StreamSummary
from raypipe.schema import MASKS, SHARD_DIGEST, SHARD_ROW, SHARD_URI, SUPERVISED, UNSUPERVISED, WEAK
from raypipe.stages.shard_crops import LoadSegmenterCrops
from raypipe.streams.collect import collect, count
from raypipe.streams.plan import Plan
from raypipe.training.order import repeat_factors
from raypipe.training.tasks import SegmenterTask
from raypipe.words import counted

OWN_MASKS_CONFIDENCE = 0.5
"""`min_confidence` of masks that the network has made itself, in rounds of self-training."""


def has_weak_rows(context: Context) -> bool:
    """True where the segmentation network is to learn from pseudo-masks."""
    return count(_trained_on(context).where(_is_weak)) > 0


def train_segmenter(
    context: Context, *, masks: Artifact | None, classifier: Artifact | None, own_masks: bool = False
) -> Artifact:
    """Trains the segmentation network, unless it is there already.

    Args:
        context: config and manifest.
        masks: folder of the pseudo-masks of `supervision: weak` rows; None where there are none.
        classifier: the checkpoint to start from, with `segmenter.start=classifier`.
        own_masks: the pseudo-masks are those of an earlier round's network; rows without supervision have some, too.

    Returns:
        The checkpoint.

    Raises:
        ValueError: if there is nothing to learn from.
    """
    return run_training(context, segmenter_plan(context, masks=masks, classifier=classifier, own_masks=own_masks))


def segmenter_plan(
    context: Context, *, masks: Artifact | None, classifier: Artifact | None, own_masks: bool = False
) -> NetworkPlan:
    """What the segmentation network is trained of; arguments and errors as of `train_segmenter`."""
    config = context.config
    training = config.training("segmenter")
    rows, warning = _rows_to_learn(context, masks=masks, own_masks=own_masks)
    task = segmenter_task(context, classifier=classifier)
    crops = LoadSegmenterCrops(
        masks=masks,
        num_classes=len(context.classes) + 1,
        long_side=config.segmenter.long_side,
        min_confidence=OWN_MASKS_CONFIDENCE if own_masks else config.segmenter.min_confidence,
        **crop_options(context, training, task),
    )
    return NetworkPlan(
        task=task,
        training=training,
        crops=crops,
        rows=rows,
        classes=context.classes,
        factors=_factors(rows, mask_share=config.segmenter.mask_share, repeat_threshold=config.repeat_threshold),
        validated_rows=_validated_rows(context),
        warning=warning,
    )


def segmenter_task(context: Context, *, classifier: Artifact | None) -> SegmenterTask:
    """The segmentation network that the config asks for; it may start from a classifier's checkpoint."""
    training = context.config.segmenter
    return SegmenterTask(
        **network_options(context, start=training.start, classifier=classifier),
        num_classes=len(context.classes),
        head=training.head,
    )


def _trained_on(context: Context, *, unlabelled: bool = False) -> Rows:
    """Rows with supervision, true or weak; `unlabelled` takes the others as weak."""
    rows = context.supervised_rows(context.config.splits.train)
    if unlabelled:
        rows = rows.then(_as_weak)
    return rows.where(lambda table: pc.is_in(table["supervision"], pa.array([SUPERVISED, WEAK])))


def _as_weak(rows: pa.Table, _: Part) -> pa.Table:
    kinds = pc.if_else(pc.equal(rows["supervision"], UNSUPERVISED), WEAK, rows["supervision"])
    return rows.set_column(rows.column_names.index("supervision"), "supervision", kinds)


def _checked(context: Context, rows: pa.Table) -> pa.Table:
    """The rows, which are some and have the masks that they need."""
    missing = rows.filter(pc.and_(pc.equal(rows["supervision"], SUPERVISED), pc.is_null(rows["mask_uri"])))
    if missing.num_rows:
        raise ValueError(
            f"{counted(missing.num_rows, 'rows have supervision')} {SUPERVISED!r} but no mask_uri "
            f"({missing['image_id'][0]}, …): give them their masks, or supervision {WEAK!r}"
        )
    if rows.num_rows == 0:
        raise ValueError(
            f"no row of splits.train={context.config.splits.train} has supervision {SUPERVISED!r} or {WEAK!r} (or "
            f"null, which is {WEAK!r}): there is nothing to learn from"
        )
    return rows


def _rows_to_learn(context: Context, *, masks: Artifact | None, own_masks: bool) -> tuple[pa.Table, str]:
    """The rows that are learned from, with the places of their pseudo-masks; and what is said of those without one."""
    config, warning = context.config, ""
    rows = _trained_on(context, unlabelled=own_masks)
    if masks is None:
        if num_weak := count(rows.where(_is_weak)):
            raise ValueError(f"{counted(num_weak, 'rows have supervision')} {WEAK!r}, which needs pseudo-masks")
        rows = rows.then(_without_places)
    else:
        rows = held(rows, masks, optional=True)
        if missing := count(rows.where(_lacks_its_mask)):
            num_weak = count(rows.where(_is_weak))
            warning = f"left out: {missing:,} of {counted(num_weak, 'weak rows')}, without a pseudo-mask "
            warning += "(not in splits.masks, or in quarantine)"
            if own_masks:  # of all rows, those with supervision none, too
                warning = f"left out: {missing:,} of {counted(num_weak, 'rows')} to segment, which are in quarantine"
        rows = rows.where(lambda table: pc.invert(_lacks_its_mask(table)))
    number = config.segmenter.max_images
    found = draw_to_learn(rows, classes=context.classes, number=number, seed=config.seed)
    if found.num_rows == 0 and masks is not None and count(_trained_on(context)):
        raise ValueError(f"{masks.uri} has no mask of a row that is trained on: let splits.masks hold splits.train")
    return _checked(context, found), warning


def _is_weak(rows: pa.Table) -> pa.ChunkedArray:
    return pc.equal(rows["supervision"], WEAK)


def _lacks_its_mask(rows: pa.Table) -> pa.ChunkedArray:
    return pc.and_(_is_weak(rows), pc.is_null(rows[SHARD_URI]))


def _without_places(rows: pa.Table, _: Part) -> pa.Table:
    for name, kind in ((SHARD_URI, pa.string()), (SHARD_ROW, pa.int32()), (SHARD_DIGEST, pa.string())):
        rows = rows.append_column(name, pa.nulls(rows.num_rows, kind))
    return rows


def _factors(rows: pa.Table, *, mask_share: float | None, repeat_threshold: float | None) -> NDArray[np.float64] | None:
    """How often each row is drawn: rare classes more often, and true masks in `mask_share` of all draws."""
    if mask_share is None and repeat_threshold is None:
        return None
    factors = np.ones(rows.num_rows)
    if repeat_threshold is not None:
        labels = [names or [] for names in rows["labels"].to_pylist()]
        factors = repeat_factors(labels, threshold=repeat_threshold)
    if mask_share is not None:
        is_true = np.asarray(pc.equal(rows["supervision"], SUPERVISED))
        for kind, share in ((is_true, mask_share), (~is_true, 1 - mask_share)):
            if share > 0 and not kind.any():
                raise ValueError(
                    f"segmenter.mask_share is {mask_share}, but {is_true.sum()} rows have true masks and "
                    f"{(~is_true).sum()} pseudo-masks; leave it null, or give both"
                )
            factors[kind] *= share / max(1, factors[kind].sum())
    return factors


def _validated_rows(context: Context) -> pa.Table | None:
    """The images whose scores choose the best epoch; None where the config names none."""
    splits = context.config.segmenter.validation_splits
    if not splits:
        return None
    with_truth = context.rows(splits).where(lambda table: pc.is_valid(table["mask_uri"]))
    rows = collect(with_truth.select(["image_id", "image_uri", "mask_uri"]))
    if rows.num_rows == 0:
        raise ValueError(f"no row of segmenter.validation_splits={list(splits)} has a true mask (mask_uri)")
    return rows


def segment_plan(context: Context, *, segmenter: Artifact, within_labels: bool = False) -> Plan:
    """FetchImages → DecodeImages → SegmentImages → RefineMasks → EncodeMasks.

    With `refinement.device=gpu` and a method, RefineOnDevice comes before RefineMasks.

    Args:
        context: config and manifest.
        segmenter: the checkpoint.
        within_labels: only the labels' classes are possible in images that have labels.
    """
    config = context.config
    return Plan(
        name="segments",
        stages=(
            fetching(config, classes=context.classes if within_labels else None, labels_needed=False),
            decode_images(context),
            segment_images(context, segmenter, within_labels=within_labels),
            *refining(context, config.segmentation.method),
            encode_masks(),
        ),
        schema=MASKS,
        classes=context.classes,
    )


def segment_rows(context: Context) -> Rows:
    """Manifest rows that are segmented; their labels don't matter."""
    config = context.config
    return context.rows(config.splits.masks if config.segmentation.splits is None else config.segmentation.splits)


def run_segment(context: Context, *, segmenter: Artifact) -> tuple[Artifact, StreamSummary]:
    """Segments the images that aren't done yet."""
    return context.run(segment_plan(context, segmenter=segmenter), segment_rows(context))
