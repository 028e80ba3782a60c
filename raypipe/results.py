"""What the steps of a run find out, as the pages show it."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SURE = 2.0
"""Standard errors from which a difference is hardly chance."""


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """What a stream did."""

    num_rows: int
    num_finished: int
    num_quarantined: int
    num_computed: int
    """Rows of the last run; the others were done before."""
    seconds: float
    """Wall time of the last run."""
    total_seconds: float
    """Wall time of all runs that came to their end, the last one among them."""

    def __str__(self) -> str:
        return (
            f"{self.num_finished} of {self.num_rows} rows finished, {self.num_quarantined} quarantined; "
            f"{self.num_computed} computed in {self.seconds:.0f} s"
        )


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """What a classifier knows of one class."""

    name: str
    num_positive: int
    """Images that show it, of those that were asked for."""
    precision: float | None
    """Average precision on images that it hasn't learned from, or what stands for it; None where all or none of the
    images show the class, as of the next two."""
    chance: float | None
    """What scores that know nothing have on average."""
    learned: float | None
    """On images that it has learned from."""


@dataclass(frozen=True, kw_only=True)
class LabelPrecision:
    """What a classifier knows of its classes: how well its scores order images by their labels."""

    method: Literal["held out", "cross-validation"]
    """`held out`: of its own scores, on images that were held out of its training. `cross-validation`, in sets of which
    none were: the lower of two, that of its own scores on the images that it has learned from, and that of a ridge
    regression on its backbone's features before the training, fold by fold. The first is low where it hasn't learned,
    the second where there is little to learn from. A network that starts from random numbers has no such features:
    those after the training stand for them, which have seen the labels, and so it may be too high."""
    num_images: int
    classes: tuple[ClassPrecision, ...]
    """In class-id order."""

    def mean(self, name: Literal["precision", "chance", "learned"]) -> float | None:
        """Mean over the classes that have one; None where no class has."""
        found = [value for each in self.classes if (value := getattr(each, name)) is not None]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a gate says of one refinement."""

    refinement: str
    """walk | dcrf | pamr; of self-training, own masks or a round."""
    judge: str
    """The score; higher is better."""
    kept: bool
    reason: str
    num_images: int
    """That were judged."""
    before: float | None = None
    """Mean score without the refinement; None where no image was judged, as the next two."""
    after: float | None = None
    difference: float | None = None
    standard_error: float | None = None
    """Of the difference; None for less than two images."""

    @property
    def may_be_chance(self) -> bool:
        """Whether a refinement is kept for a difference of so few standard errors that chance alone may bring it."""
        if self.difference is None or not self.standard_error:
            return False
        return self.kept and 0 < self.difference < SURE * self.standard_error

    def __str__(self) -> str:
        chance = ", which chance alone may do" if self.may_be_chance else ""
        return f"{self.refinement} {'kept' if self.kept else 'rejected'}: {self.reason}{chance}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a confidence map is worth on images that it wasn't fitted on."""

    num_images: int
    num_pixels: int
    ece_before: float
    """Expected calibration error of confidence / 255 as the masks have it."""
    ece: float
    """The same after calibration."""
    mean_iou: dict[str, float]
    """By coverage: of the share of pixels whose calibrated confidence is highest."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the results table."""

    stage: str
    """cam | walk | dcrf | pamr | segmenter."""
    split: str
    num_images: int
    mean_iou: float
    """Over background and all classes that are in truth or masks, 0..1."""
    class_iou: dict[str, float]
    post_processing: str
    truth_digest: str
    """Of the true masks, by image_id."""
    num_unscored: int
    """Images whose true mask couldn't be compared: their reasons are in `unscored`."""
    unscored: dict[str, str] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    """(C + 1, C + 1) pixels, rows the truth; None where the score was read back, as a file of its own holds it."""
