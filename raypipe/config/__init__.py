"""Configuration: what a run is asked to do."""

from raypipe.config.loading import ConfigError, load_config, presets, to_yaml, trial_config
from raypipe.config.root import Budget, Cluster, RunConfig
from raypipe.config.selection import flat_changes
from raypipe.config.stages import Cams, Images, Trimaps
from raypipe.config.training import Training, TrainingSection

__all__ = [
    "Budget",
    "Cams",
    "Cluster",
    "ConfigError",
    "Images",
    "RunConfig",
    "Training",
    "TrainingSection",
    "Trimaps",
    "flat_changes",
    "load_config",
    "presets",
    "to_yaml",
    "trial_config",
]
