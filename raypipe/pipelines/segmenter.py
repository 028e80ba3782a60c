"""The segmentation network: trained on pseudo-masks and true masks, then used on any images of a manifest."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.pipelines.context import Context
from raypipe.pipelines.held_rows import locate
from raypipe.pipelines.networks import NetworkPlan, crop_options, network_options, run_training
from raypipe.pipelines.steps import decode_images, encode_masks, pixels_per_pass, refining
from raypipe.results import StreamSummary
from raypipe.schema import MASKS, SHARD_DIGEST, SHARD_URI, SUPERVISED, UNSUPERVISED, WEAK
from raypipe.stages.crops import LoadSegmenterCrops
from raypipe.stages.fetch import FetchImages
from raypipe.stages.segment import SegmentImages
from raypipe.streams.plan import Plan
from raypipe.training.order import repeat_factors
from raypipe.training.selection import draw_images
from raypipe.training.tasks import SegmenterTask

logger = logging.getLogger(__name__)

OWN_MASKS_CONFIDENCE = 0.5
"""`min_confidence` of masks that the network has made itself, in rounds of self-training."""


def has_weak_rows(context: Context) -> bool:
    """True where the segmentation network is to learn from pseudo-masks."""
    return bool(pc.any(pc.equal(_trained_on(context)["supervision"], WEAK)).as_py())


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
    config = context.config
    training = config.training("segmenter")
    rows = _with_masks(_trained_on(context, unlabelled=own_masks), masks)
    number = config.segmenter.max_images
    rows = draw_images([rows], classes=context.classes, number=number, seed=config.seed)
    task = segmenter_task(context, classifier=classifier)
    crops = LoadSegmenterCrops(
        masks=masks,
        num_classes=len(context.classes) + 1,
        long_side=config.segmenter.long_side,
        min_confidence=OWN_MASKS_CONFIDENCE if own_masks else config.segmenter.min_confidence,
        **crop_options(context, training, task),
    )
    plan = NetworkPlan(
        task=task,
        training=training,
        crops=crops,
        rows=rows,
        classes=context.classes,
        factors=_factors(rows, mask_share=config.segmenter.mask_share, repeat_threshold=config.repeat_threshold),
        validated_rows=_validated_rows(context),
    )
    return run_training(context, plan)


def segmenter_task(context: Context, *, classifier: Artifact | None) -> SegmenterTask:
    """The segmentation network that the config asks for; it may start from a classifier's checkpoint."""
    training = context.config.segmenter
    return SegmenterTask(
        **network_options(context, start=training.start, classifier=classifier),
        num_classes=len(context.classes),
        head=training.head,
    )


def _trained_on(context: Context, *, unlabelled: bool = False) -> pa.Table:
    """Rows with supervision, true or weak; `unlabelled` takes the others as weak."""
    rows = context.supervised_rows(context.config.splits.train)
    if unlabelled:
        kinds = pc.if_else(pc.equal(rows["supervision"], UNSUPERVISED), WEAK, rows["supervision"])
        rows = rows.set_column(rows.column_names.index("supervision"), "supervision", kinds)
    rows = rows.filter(pc.is_in(rows["supervision"], pa.array([SUPERVISED, WEAK])))
    missing = rows.filter(pc.and_(pc.equal(rows["supervision"], SUPERVISED), pc.is_null(rows["mask_uri"])))
    if missing.num_rows:
        raise ValueError(
            f"{missing.num_rows} rows have supervision {SUPERVISED!r} but no mask_uri ({missing['image_id'][0]}, …): "
            f"give them their masks, or supervision {WEAK!r}"
        )
    if rows.num_rows == 0:
        raise ValueError(
            f"no row of splits.train={context.config.splits.train} has supervision {SUPERVISED!r} or {WEAK!r} (or "
            f"null, which is {WEAK!r}): there is nothing to learn from"
        )
    return rows


def _with_masks(rows: pa.Table, masks: Artifact | None) -> pa.Table:
    """Adds the shard of each row's pseudo-mask; weak rows without one are left out."""
    is_weak = pc.equal(rows["supervision"], WEAK)
    if masks is None:
        if pc.any(is_weak).as_py():
            raise ValueError(f"{pc.sum(is_weak)} rows have supervision {WEAK!r}: they need pseudo-masks")
        for name in (SHARD_URI, SHARD_DIGEST):
            rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.string()))
        return rows
    rows = locate(rows, masks)
    missing = pc.and_(pc.equal(rows["supervision"], WEAK), pc.is_null(rows[SHARD_URI]))
    if pc.any(missing).as_py():
        logger.warning(
            "%d of %d weak rows have no pseudo-mask (not in splits.masks, or in quarantine) and are left out",
            pc.sum(missing).as_py(),
            pc.sum(is_weak).as_py(),
        )
    rows = rows.filter(pc.invert(missing))
    if rows.num_rows == 0:
        raise ValueError(f"{masks.uri} has no mask of a row that is trained on: let splits.masks hold splits.train")
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
    rows = context.rows(splits)
    rows = rows.filter(pc.is_valid(rows["mask_uri"])).select(["image_id", "image_uri", "mask_uri"])
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
            FetchImages(classes=context.classes if within_labels else None, labels_needed=False),
            decode_images(context),
            SegmentImages(
                segmenter=segmenter,
                scales=config.segmentation.scales,
                max_side=config.images.max_side,
                precision=config.precision,
                within_labels=within_labels,
                pixels_per_pass=pixels_per_pass(config),
            ),
            *refining(context, config.segmentation.method),
            encode_masks(),
        ),
        schema=MASKS,
        classes=context.classes,
    )


def segment_rows(context: Context) -> pa.Table:
    """Manifest rows that are segmented; their labels don't matter."""
    config = context.config
    return context.rows(config.splits.masks if config.segmentation.splits is None else config.segmentation.splits)


def run_segment(context: Context, *, segmenter: Artifact) -> tuple[Artifact, StreamSummary]:
    """Segments the images that aren't done yet."""
    return context.run(segment_plan(context, segmenter=segmenter), segment_rows(context))
