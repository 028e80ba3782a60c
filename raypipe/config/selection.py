"""How results are scored, and settings and confidences chosen."""

from collections.abc import Mapping
from itertools import product
from typing import Any, Literal

from pydantic import Field, model_validator

from raypipe.config.base import Section


class Evaluation(Section):
    """Scores against true masks, where the manifest has them."""

    splits: tuple[str, ...] | None = None
    """Splits to score, each on its own; null scores every split that has true masks."""
    threshold_split: str | None = None
    """Split on which the constant background threshold of CAMs is chosen, for all splits; null takes the first."""
    thresholds: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 17))


TRAINED = ("classifier", "cams", "trimaps", "affinity", "checkpoints")
"""Sections that make the networks: what an outer sweep may change without scoring other images, or otherwise."""


def flat_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names to values, of one combination of `sweep.training`: what is named in mappings beside the rest."""
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


class Sweep(Section):
    """Settings of the walk that are compared in one pass: every combination, the config's own and the paper's."""

    alphas: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    betas: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    steps: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 256, 512)
    radii: tuple[int, ...] | None = None
    """null takes the walk's."""
    splits: tuple[str, ...] | None = None
    """Splits whose images are scored; null takes those that get masks."""
    num_images: int | None = Field(1000, ge=1)
    """Images that are scored, drawn at random; null takes all."""
    num_labelled: int = Field(0, ge=0)
    """True masks, of images drawn at random, that the choice may use; 0 chooses by what is known without truth."""
    num_finalists: int = Field(10, ge=1)
    """The best settings without truth: `num_labelled` true masks choose among them, and where there are true masks they
    are scored again at full resolution."""
    stride: Literal[1, 4] = 4
    """Pixels per counted pixel of the first scoring, in both directions."""
    seed: int = Field(0, ge=0)
    training: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Outer sweep: dotted names of what is trained to values, such as `{classifier.optimizer.lr: [1e-4, 3e-4]}`. Every
    combination is a trial of Ray Tune: its networks are trained, then swept. What changes together is a mapping,
    under any name: `{network: [{classifier.backbone: vgg16, classifier.weights: null}, {classifier.epochs: 30}]}`."""
    scheduler: Literal["fifo", "asha"] = "fifo"
    """`asha` stops a trial early (Li et al., 2020) if its classifier's training loss is above the median of those
    before at the same epoch. For values under which losses compare: more epochs, or harder crops, lose."""

    @model_validator(mode="after")
    def _values(self) -> "Sweep":
        for name in ("alphas", "betas", "steps", "radii"):
            values = getattr(self, name)
            if values is not None and not values:
                raise ValueError(f"{name} needs at least one value")
        for name, lowest in (("alphas", 0.0), ("betas", 0.0), ("steps", -1), ("radii", 1)):
            if any(value <= lowest for value in getattr(self, name) or ()):
                raise ValueError(f"{name} are above {lowest:g}, got {getattr(self, name)}")
        return self

    @property
    def training_changes(self) -> list[dict[str, Any]]:
        """What each trial changes, dotted names to values: every combination of `training`."""
        return [
            flat_changes(dict(zip(self.training, values, strict=True))) for values in product(*self.training.values())
        ]

    @model_validator(mode="after")
    def _training(self) -> "Sweep":
        for name, values in self.training.items():
            if not values:
                raise ValueError(f"training needs at least one value of {name}")
        names = sorted({str(name) for changes in self.training_changes for name in changes})
        for name in names:
            section, _, rest = name.partition(".")
            if section not in TRAINED or not rest:
                raise ValueError(f"training takes dotted names in {', '.join(TRAINED)}, got {name!r}")
        if self.scheduler == "asha" and not any(name.startswith("classifier.") for name in names):
            raise ValueError(
                "scheduler asha watches the classifier's training; name a classifier.… in training, or fifo"
            )
        return self


class Calibration(Section):
    """The masks' confidence made a probability, by a few of the true masks."""

    num_images: int = Field(50, ge=1)
    """Images that the probabilities are fitted on; the other images with true masks measure them."""
    splits: tuple[str, ...] | None = None
    """Splits from which those images are drawn; null draws from all that have masks and true masks."""
    seed: int = Field(0, ge=0)
    """Another seed draws other images."""
    max_risk: float | None = Field(None, ge=0, le=1)
    """Calibrated masks get 255 (ignore) where a pixel's label is wrong with a larger probability; null keeps all."""
