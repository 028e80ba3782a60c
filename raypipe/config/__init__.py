"""Configuration: what a run is asked to do."""

from raypipe.config.loading import ConfigError, load_config, presets, to_yaml
from raypipe.config.sections import (
    CLASSIFIER,
    AffinityTraining,
    Budget,
    Cams,
    ClassifierTraining,
    Cluster,
    DenseCrf,
    Evaluation,
    Inference,
    Optimizer,
    Refinement,
    RunConfig,
    Section,
    Training,
    Trimaps,
    Walk,
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
    "Refinement",
    "RunConfig",
    "Section",
    "Training",
    "Trimaps",
    "Walk",
    "load_config",
    "presets",
    "to_yaml",
]
