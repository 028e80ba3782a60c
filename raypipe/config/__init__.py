"""Configuration: what a run is asked to do."""

from raypipe.config.base import CLASSIFIER, Section
from raypipe.config.loading import ConfigError, load_config, presets, to_yaml, trial_config
from raypipe.config.root import Budget, Cluster, RunConfig
from raypipe.config.selection import Evaluation, Sweep, flat_changes
from raypipe.config.stages import Cams, DenseCrf, Inference, Pamr, Refinement, Saliency, Trimaps, Walk
from raypipe.config.training import (
    AffinityTraining,
    ClassifierTraining,
    Optimizer,
    SaliencyLoss,
    SegmenterTraining,
    Training,
)

__all__ = [
    "CLASSIFIER",
    "AffinityTraining",
    "Budget",
    "Cams",
    "ClassifierTraining",
    "Cluster",
    "ConfigError",
    "DenseCrf",
    "Evaluation",
    "Inference",
    "Optimizer",
    "Pamr",
    "Refinement",
    "RunConfig",
    "Saliency",
    "SaliencyLoss",
    "Section",
    "SegmenterTraining",
    "Sweep",
    "Training",
    "Trimaps",
    "Walk",
    "flat_changes",
    "load_config",
    "presets",
    "to_yaml",
    "trial_config",
]
