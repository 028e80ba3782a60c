"""How results are scored, and settings and confidences chosen."""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raypipe.artifacts import NOT_IN_DIGEST
from raypipe.config.base import Section


class Evaluation(Section):
    """Scores against true masks, where the manifest has them."""

    splits: tuple[str, ...] | None = None
    """Splits to score, each on its own; null scores every split that has true masks, in the order of their names. The
    constant background threshold of CAMs is chosen on the first one that is scored, for all splits."""


TRAINED = ("network", "optimizer", "classifier", "cams", "trimaps", "affinity", "checkpoints")
"""Sections that make the networks: what an outer sweep may change without scoring other images, or otherwise."""

TRAINED_OPTIONS = ("jitter", "repeat_threshold", "walk.affinity")
"""Such options that stand in no section, or in one whose other options are no network's."""


def flat_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names to values, of one combination of `sweep.training`: what is named in mappings beside the rest."""
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


class Sweep(Section):
    """Settings of the walk that are compared in one pass: every combination, the config's own and the paper's."""

    search: Literal["grid", "optuna"] = "grid"
    """`optuna` looks beyond the values below, on as many images: at alphas from 1 to 128, betas from 1 to 64, up to
    512 steps and radii up to `affinity.radius`, in trials of Ray Tune. It needs the extra `tune`."""
    alphas: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    """Values of `walk.alpha` that are compared. More cost little: maps and affinities are computed once."""
    betas: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    """Values of `walk.beta` that are compared; each is a walk of its own."""
    steps: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 256, 512)
    """Values of `walk.num_steps` that are compared; all come from one expansion, so the largest alone costs time."""
    num_images: int | None = Field(1000, ge=1)
    """Images that are scored, drawn at random; null takes all. More make a surer choice."""
    num_labelled: int = Field(0, ge=0)
    """True masks, of images drawn at random, that the choice may use; 0 chooses by what is known without truth.
    docs/settings-without-truth.md says what fifty are worth."""
    training: Annotated[dict[str, tuple[Any, ...]], NOT_IN_DIGEST] = Field(default_factory=dict)
    """Outer sweep: dotted names of what is trained to values, such as `{classifier.lr: [1e-4, 3e-4]}`. Every
    combination is a trial of Ray Tune: its networks are trained, then swept. What changes together is a mapping, under
    any name: `{kind: [{network.backbone: vgg16, network.weights: null}, {classifier.epochs: 30}]}`."""

    @model_validator(mode="after")
    def _values(self) -> "Sweep":
        for name, lowest in (("alphas", 0.0), ("betas", 0.0), ("steps", -1)):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} needs at least one value")
            if any(value <= lowest for value in values):
                raise ValueError(f"{name} are above {lowest:g}, got {values}")
        return self

    @property
    def training_changes(self) -> list[dict[str, Any]]:
        """What each trial changes, dotted names to values: every combination of `training`."""
        return [
            flat_changes(dict(zip(self.training, values, strict=True))) for values in product(*self.training.values())
        ]

    @model_validator(mode="after")
    def _training(self) -> "Sweep":
        if self.training and self.search != "grid":
            raise ValueError(
                f"training doesn't go with search={self.search}: compare networks by the grid, then search for the best"
            )
        for name, values in self.training.items():
            if not values:
                raise ValueError(f"training needs at least one value of {name}")
        names = sorted({str(name) for changes in self.training_changes for name in changes})
        for name in names:
            section, _, rest = name.partition(".")
            if name not in TRAINED_OPTIONS and (section not in TRAINED or not rest):
                others = ", ".join(TRAINED_OPTIONS)
                raise ValueError(
                    f"training takes dotted names in {', '.join(TRAINED)}, or one of {others}, got {name!r}"
                )
        return self


class Calibration(Section):
    """The masks' confidence made a probability, by a few of the true masks."""

    num_images: int = Field(50, ge=1)
    """Images that the probabilities are fitted on; the other images with true masks measure them. More make a smoother
    curve; some have to be left."""
    max_risk: float | None = Field(None, ge=0, le=1)
    """Calibrated masks get 255 (ignore) where a pixel's label is wrong with a larger probability; null keeps all.
    Lowered, more is ignored and less of what stays is wrong."""
