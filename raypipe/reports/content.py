"""What a report shows: plain data, collected elsewhere.

Conventions: class ids as everywhere (0 background, 1..C, 255 ignore); IoU values are shares, 0..1, nan where a class is
in neither truth nor masks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.ops.cooccurrence import Pair
from raypipe.reports.saliency_samples import SaliencySample

KINDS = ("best", "worst", "random")
"""Why an image is in the report."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with everything that led to its mask. Maps and masks may have other sizes than the pixels."""

    image_id: str
    kind: str
    """One of KINDS."""
    labels: tuple[str, ...]
    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    class_ids: tuple[int, ...]
    """Of the channels of `cam`."""
    cam: NDArray[np.float32]
    """(K, h, w), 0..1; K = 0 for an image without classes."""
    affinity: NDArray[np.float32] | None
    """(num_offsets, h8, w8) at stride 8, in the order of `ops.affinity.pair_offsets`."""
    walk_mask: NDArray[np.uint8]
    """(H, W) class ids after the random walk."""
    mask: NDArray[np.uint8] | None
    """(H, W) class ids after refinement; None where nothing was refined."""
    segment: NDArray[np.uint8] | None
    """(H, W) class ids of the segmentation network; None where there is none."""
    truth: NDArray[np.uint8] | None
    """(H, W) class ids."""
    iou: float | None
    """Mean IoU of this image's final mask."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """What the final masks of a split say of the pixels of each class."""

    stage: str
    split: str
    matrix: NDArray[np.int64]
    """(C + 1, C + 1) pixels; rows are the truth, columns the mask, background first."""


@dataclass(frozen=True, kw_only=True)
class LabelPairs:
    """Classes that come together, from labels alone."""

    num_images: int
    """With labels known, empty ones too."""
    pairs: Sequence[Pair]
    """Indices count from 0, the first class."""


@dataclass(frozen=True, kw_only=True)
class RiskCurves:
    """How wrong the masks are that one keeps, when the least sure are put aside."""

    title: str
    note: str
    coverages: Sequence[float]
    """Shares that are kept, in (0, 1]."""
    risks: Mapping[str, Sequence[float]]
    """Curve's name to the risk at each coverage, 0..1."""


@dataclass(frozen=True, kw_only=True)
class SweepPlots:
    """What a sweep of the walk's settings found."""

    name: str
    facts: Mapping[str, str]
    plots: Mapping[str, bytes]
    """What is drawn to a stand-alone SVG."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """Images that failed at one stage for like reasons."""

    stage: str
    reason: str
    """Of the first of them."""
    num_images: int
    image_ids: Sequence[str]
    """A few of them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that stands on the page. Any part may be empty: the page then says how to get it."""

    title: str
    classes: tuple[str, ...]
    """Names of the class ids 1..C."""
    scores: Sequence[Mapping[str, Any]]
    """stage (cam | walk | dcrf | pamr | segmenter), split, num_images, mean_iou, class_iou {name: IoU},
    post_processing, truth_digest, num_unscored; stages in the order of the pipeline."""
    gate: str
    """off | run | image: where it is decided whether a refinement is kept."""
    decisions: Sequence[Mapping[str, Any]]
    """refinement (walk | dcrf | pamr), judge, kept, reason, num_images, before, after, difference, standard_error; the
    last four may be None."""
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    """Network name to metrics per epoch: epoch, loss, loss_*, lr, images_per_second, share_waiting, seconds,
    num_unreadable, and dropped_share where saliency taught."""
    samples: Iterable[Sample]
    """Taken one after the other, so that only one is in memory."""
    confusions: Sequence[Confusion] = ()
    label_pairs: LabelPairs | None = None
    """None where no image has a label."""
    risks: Sequence[RiskCurves] = ()
    sweeps: Sequence[SweepPlots] = ()
    saliency: Sequence[SaliencySample] = ()
    """Of training images, where saliency taught the classifier."""
    streams: Mapping[str, Mapping[str, Any]]
    """Stage to num_rows, num_finished, num_quarantined, num_computed, seconds."""
    quarantine: Sequence[Quarantined]
    """The largest groups first; the last may stand for all others."""
    provenance: Mapping[str, Any]
    """Config as YAML text, checkpoint digests, versions."""
