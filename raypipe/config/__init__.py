"""Configuration: what a run is asked to do."""

from raypipe.config.base import Section
from raypipe.config.loading import ConfigError, load_config, presets, to_yaml, trial_config
from raypipe.config.root import Budget, Cluster, RunConfig
from raypipe.config.selection import Evaluation, Sweep, flat_changes
from raypipe.config.stages import Cams, Inference, Refinement, Saliency, Trimaps, Walk
from raypipe.config.training import (
    AffinityTraining,
    ClassifierTraining,
    NetworkConfig,
    Optimizer,
    SaliencyLoss,
    SegmenterTraining,
    Training,
    TrainingSection,
)

__all__ = [
    "AffinityTraining",
    "Budget",
    "Cams",
    "ClassifierTraining",
    "Cluster",
    "ConfigError",
    "Evaluation",
    "Inference",
    "NetworkConfig",
    "Optimizer",
    "Refinement",
    "RunConfig",
    "Saliency",
    "SaliencyLoss",
    "Section",
    "SegmenterTraining",
    "Sweep",
    "Training",
    "TrainingSection",
    "Trimaps",
    "Walk",
    "flat_changes",
    "load_config",
    "presets",
    "to_yaml",
    "trial_config",
]
