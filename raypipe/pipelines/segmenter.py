"""The segmentation network: trained on pseudo-masks and true masks, then used on any images of a manifest."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from raypipe import storage
from raypipe.config import CLASSIFIER, SegmenterTraining
from raypipe.data.checkpoints import WEIGHTS_FILE
from raypipe.pipelines.context import Context, stream_of, with_shards
from raypipe.pipelines.seeds import cpu_pool, decode_step, network_step
from raypipe.pipelines.train import crop_args, run_training
from raypipe.schema import MASKS, SUPERVISED, UNSUPERVISED, WEAK
from raypipe.stages.crops import LoadSegmenterCrops
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.refine import RefineMasks
from raypipe.stages.segment import SegmentImages
from raypipe.stages.true_masks import LoadTrueMasks
from raypipe.streams import plan as graph
from raypipe.streams.records import Record
from raypipe.streams.run import Part, Stream, StreamSummary, run_stream
from raypipe.training.order import repeat_factors
from raypipe.training.tasks import SegmenterTask
from raypipe.training.validation import Validation, ValidationFeed

logger = logging.getLogger(__name__)

_KEYS = ["image_id", "image_uri", "labels", "mask_uri", "supervision"]


def has_weak_rows(context: Context) -> bool:
    """True where the segmentation network is to learn from pseudo-masks."""
    return bool(pc.any(pc.equal(_trained_on(context)["supervision"], WEAK)).as_py())


def train_segmenter(
    context: Context,
    *,
    masks: str | None,
    masks_digest: str | None,
    classifier: str | None = None,
    classifier_digest: str | None = None,
    own_masks: bool = False,
) -> tuple[str, str]:
    """Trains the segmentation network, unless it is there already.

    Args:
        context: config and manifest.
        masks: folder of the pseudo-masks of `supervision: weak` rows, and its digest; None where there are none.
        masks_digest: see `masks`.
        classifier: URI and digest of the checkpoint to start from, with `segmenter.weights=classifier`.
        classifier_digest: see `classifier`.
        own_masks: the pseudo-masks are an earlier network's; rows without supervision have some, too.

    Returns:
        The checkpoint's URI and digest.

    Raises:
        ValueError: if there is nothing to learn from.
    """
    training: SegmenterTraining = context.config.segmenter
    rows = _with_masks(_trained_on(context, unlabelled=own_masks), masks)
    task = segmenter_task(context, classifier=classifier)
    step = graph.Step(
        stage=LoadSegmenterCrops,
        args={
            "num_classes": len(context.classes) + 1,
            "long_side": training.long_side,
            "min_confidence": training.round_min_confidence if own_masks else training.min_confidence,
            "confidence_power": training.confidence_power,
            **crop_args(context, training, task),
        },
    )
    return run_training(
        context,
        task,
        training,
        rows,
        step,
        factors=_factors(rows, mask_share=training.mask_share, repeat_threshold=training.repeat_threshold),
        validation=_validation(context),
        manifest_columns=_KEYS,
        masks=masks_digest or "none",
        classifier=classifier_digest or "none",
    )


def segmenter_task(context: Context, *, classifier: str | None) -> SegmenterTask:
    """The segmentation network that the config asks for; it may start from a classifier's checkpoint."""
    training = context.config.segmenter
    weights = training.weights
    if weights == CLASSIFIER:
        if classifier is None:
            raise ValueError("segmenter.weights=classifier needs the classifier's checkpoint")
        weights = storage.join(classifier, WEIGHTS_FILE)
    return SegmenterTask(
        backbone=training.backbone,
        weights=weights,
        preprocessing=training.preprocessing,
        num_classes=len(context.classes),
        head=training.head,
        output_stride=training.output_stride,
        weak_weight=training.weak_weight,
        robustness=training.robustness,
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


def _with_masks(rows: pa.Table, masks: str | None) -> pa.Table:
    """The rows with a `shard_uri`, null where the mask is a true one; weak rows without a pseudo-mask are left out."""
    is_weak = pc.equal(rows["supervision"], WEAK)
    true, weak = rows.filter(pc.invert(is_weak)), rows.filter(is_weak)
    true = true.append_column("shard_uri", pa.nulls(true.num_rows, pa.string()))
    if weak.num_rows == 0:
        return true
    if masks is None:
        raise ValueError(f"{weak.num_rows} rows have supervision {WEAK!r}: they need pseudo-masks")
    held, others = with_shards(weak, masks)
    if others.num_rows:
        logger.warning(
            "%d of %d rows have no pseudo-mask (they aren't in splits.masks, or are in quarantine) and are left out",
            others.num_rows,
            weak.num_rows,
        )
    rows = pa.concat_tables([true, held.select(true.column_names)]).sort_by("image_id")
    if rows.num_rows == 0:
        raise ValueError(f"{masks} has no mask of a row that is trained on: let splits.masks hold splits.train")
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


def _validation(context: Context) -> Validation | None:
    config = context.config
    splits = config.segmenter.validation_splits
    if not splits:
        return None
    rows = context.supervised_rows(splits)
    rows = rows.filter(pc.is_valid(rows["mask_uri"])).select(["image_id", "image_uri", "labels", "mask_uri"])
    if rows.num_rows == 0:
        raise ValueError(f"no row of segmenter.validation_splits={list(splits)} has a true mask (mask_uri)")
    num_labels = len(context.classes) + 1
    steps = [
        decode_step(context, with_labels=False),
        graph.Step(stage=LoadTrueMasks, args={"num_classes": num_labels}),
    ]
    return Validation(
        feed=_validation_feed(ray.put(rows), steps, autoscaling=config.cluster.autoscaling),
        num_labels=num_labels,
        max_side=config.images.max_side,
        precision=config.segmentation.precision,
    )


def _validation_feed(rows: Any, steps: list[graph.Step], *, autoscaling: bool) -> ValidationFeed:
    def feed(rank: int, world_size: int) -> Iterator[pa.Table]:
        table: pa.Table = ray.get(rows)
        part = table.take(pa.array(range(rank, table.num_rows, world_size), pa.int64()))
        if part.num_rows:
            dataset = graph.apply(graph.source(part, rows_per_block=8), steps, autoscaling=autoscaling)
            yield from dataset.iter_batches(batch_size=8, batch_format="pyarrow")

    return feed


def segment_steps(context: Context, *, segmenter: str, within_labels: bool = False) -> list[graph.Step]:
    """DecodeImages → SegmentImages → RefineMasks → EncodeMasks.

    Args:
        context: config and manifest.
        segmenter: the checkpoint's URI.
        within_labels: only the labels' classes are possible; false takes images without labels, too.
    """
    segmentation, max_side = context.config.segmentation, context.config.images.max_side
    network = {
        "checkpoint": segmenter,
        "max_side": max_side,
        "within_labels": within_labels,
        **segmentation.model_dump(include={"scales", "mirror", "precision"}),
    }
    refinement = {"max_side": max_side, "power": 1.0, **segmentation.model_dump(include={"method", "dense_crf"})}
    return [
        decode_step(context, with_labels=within_labels),
        network_step(context, SegmentImages, network),
        graph.Step(stage=RefineMasks, args=refinement, **cpu_pool(context)),
        graph.Step(stage=EncodeMasks, batch_size=8, **cpu_pool(context)),
    ]


def segment_rows(context: Context) -> pa.Table:
    """Manifest rows that are segmented; their labels don't matter."""
    config = context.config
    return context.rows(config.splits.masks if config.segmentation.splits is None else config.segmentation.splits)


def segment_stream(
    context: Context, *, segmenter_digest: str, rows: pa.Table | None = None, within_labels: bool = False
) -> Stream:
    """Where the masks of the segmentation network go; arguments as of `run_segment`."""
    config = context.config
    settings = {
        "images": config.images.model_dump(),
        "mode": config.inference.mode,
        "segmentation": config.segmentation.model_dump(exclude={"splits"}),
        "within_labels": within_labels,
        "png": config.png,
    }
    manifest = context.inputs_digest(segment_rows(context) if rows is None else rows)
    inputs = {"segmenter": segmenter_digest, "manifest": manifest}
    return stream_of(context, Record(stage="segments", config=settings, inputs=inputs), MASKS, png=True)


def run_segment(context: Context, *, segmenter: str, segmenter_digest: str) -> tuple[str, StreamSummary]:
    """Segments the images that aren't done yet.

    Args:
        context: config and manifest.
        segmenter: the checkpoint's URI, and its digest.
        segmenter_digest: see `segmenter`.

    Returns:
        The folder's URI and what was done.
    """
    stream = segment_stream(context, segmenter_digest=segmenter_digest)
    return stream.folder, run_stream(stream, Part(segment_rows(context), segment_steps(context, segmenter=segmenter)))
