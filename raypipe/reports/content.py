"""The plain data that a report shows; other modules collect them.

Conventions: class ids as everywhere (0 background, 1..C, 255 ignore); IoU values are shares, 0..1, or nan for a class
that is in neither truth nor masks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.ops.cooccurrence import Pair
from raypipe.results import Decision, LabelPrecision, Score

KINDS = ("best", "worst", "random")
"""Reasons for which an image is in the report."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with everything that led to its mask. Maps and masks may differ in size from the pixels."""

    image_id: str
    kind: str
    """One of KINDS."""
    labels: tuple[str, ...]
    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    class_ids: tuple[int, ...]
    """Class ids of the channels of `cam`."""
    cam: NDArray[np.float32] | None
    """(K, h, w), 0..1; K = 0 for an image without classes; None where nobody has kept or computed the maps."""
    affinity: NDArray[np.float32] | None
    """(num_offsets, h8, w8) at stride 8, in the order of `ops.affinity.pair_offsets`."""
    walk_mask: NDArray[np.uint8]
    """(H, W) class ids after the random walk."""
    mask: NDArray[np.uint8] | None
    """(H, W) class ids after refinement; None if nothing was refined."""
    segment: NDArray[np.uint8] | None
    """(H, W) class ids of the segmentation network, or None without one."""
    truth: NDArray[np.uint8] | None
    """(H, W) class ids of the true mask, or None without one."""
    iou: float | None
    """Mean IoU of this image's final mask."""


@dataclass(frozen=True, kw_only=True)
class SaliencySample:
    """A training image and the maps of its saliency loss. Maps may differ in size from the pixels."""

    image_id: str
    labels: tuple[str, ...]
    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    saliency: NDArray[np.float32]
    """M_s (h, w), 0..1."""
    foreground: NDArray[np.float32]
    """M_fg (h, w), 0..1."""
    refined: NDArray[np.float32] | None
    """M_r (h, w), 0..1; None if nothing was refined."""
    inconsistent_region: NDArray[np.bool_] | None
    """N (h, w), True for dropped pixels; None if the loss drops none."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The confusion matrix of the final masks of a split."""

    stage: str
    split: str
    matrix: NDArray[np.int64]
    """(C + 1, C + 1) pixels; rows are the truth, columns the mask, background first."""


@dataclass(frozen=True, kw_only=True)
class LabelPairs:
    """Classes that appear together, counted from labels only."""

    num_images: int
    """Number of images whose labels are known, including empty ones."""
    pairs: Sequence[Pair]
    """Pairs of classes; their indices count from 0, the first class."""


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How often a class is named and found."""

    name: str
    num_labelled: int
    """Images of the manifest that have the label."""
    num_masks: int
    """Those of them that have a mask."""
    num_shown: int
    """Those of them whose mask shows the class."""
    area: float
    """Mean share of the image in the masks that show it, 0..1; nan where none does."""
    predicted_iou: float
    """Mean over the images with the label; nan where it is known of none."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the masks hold, counted without any truth."""

    num_masks: int
    num_empty: int
    """Masks of images with labels that show no class at all."""
    predicted_iou: float
    """Mean over the masks of images with labels; nan where it is known of none."""
    classes: Sequence[ClassCount]


@dataclass(frozen=True, kw_only=True)
class OwnWalks:
    """Numbers of images that took another walk than the run's; some are in several."""

    alpha: float
    """The run's, as `num_steps`."""
    num_steps: int
    num_images: int
    """Those that were walked."""
    num_others: int
    """Those with another walk."""
    num_smaller_alpha: int
    num_shorter: int
    """Those with fewer steps, or none."""
    num_longer: int


@dataclass(frozen=True, kw_only=True)
class RiskCurves:
    """How wrong the remaining masks are when the least sure ones are put aside."""

    title: str
    note: str
    coverages: Sequence[float]
    """Shares of the images that are kept, in (0, 1]."""
    risks: Mapping[str, Sequence[float]]
    """Risk at each coverage, 0..1, by the name of the curve."""


@dataclass(frozen=True, kw_only=True)
class SweepPlots:
    """The result of a sweep over settings of the walk."""

    name: str
    facts: Mapping[str, str]
    plots: Mapping[str, bytes]
    """Stand-alone SVGs by the name of what they show."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """Images that failed at one stage for similar reasons."""

    stage: str
    reason: str
    """Reason of the first image."""
    num_images: int
    image_ids: Sequence[str]
    """Ids of a few of these images."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows. What is empty has no section."""

    title: str
    about: Mapping[str, str]
    """What the page is about, for its head: dataset, folder, settings, date."""
    classes: tuple[str, ...]
    """Names of the class ids 1..C."""
    scores: Sequence[Score]
    """Stages in the order of the pipeline."""
    gate: str
    """off | run | image: what a decision to keep a refinement is made for."""
    decisions: Sequence[Decision]
    walks: OwnWalks | None = None
    """None where all images took the same."""
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    """Network name to metrics per epoch: epoch, loss, loss_*, lr, images_per_second, share_waiting, seconds,
    num_unreadable, and dropped_share where saliency taught."""
    samples: Iterable[Sample]
    """Samples, read one after another, so that only one is in memory."""
    counts: Counts | None = None
    confusions: Sequence[Confusion] = ()
    label_pairs: LabelPairs | None = None
    """Pairs of classes, or None if no image has a label."""
    risks: Sequence[RiskCurves] = ()
    sweeps: Sequence[SweepPlots] = ()
    saliency: Sequence[SaliencySample] = ()
    """Training images with their saliency, if saliency taught the classifier."""
    known: LabelPrecision | None = None
    """What the classifier knows of each class; None where nobody knows."""
    sayings: Sequence[str] = ()
    """What follows from it: that it is enough, or what has probably gone wrong."""
    streams: Mapping[str, Mapping[str, Any]]
    """num_rows, num_finished, num_quarantined, num_computed and seconds of each stage."""
    quarantine: Sequence[Quarantined]
    """Groups of quarantined images, the largest first; the last may stand for all others."""
    provenance: Mapping[str, str]
    """Config as YAML text, checkpoint digests, versions; several lines stand in a block of their own."""
