"""What the commands have in common: a config file and dotted overrides."""

from typing import Annotated, Any

import typer

from raypipe import storage
from raypipe.config import ConfigError, RunConfig, load_config

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file or URI; - takes the defaults.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Dotted overrides, such as walk.beta=4.")
]


def read_config(config: str, overrides: list[str] | None) -> RunConfig:
    """The resolved config of a file and overrides.

    Raises:
        ConfigError: if it can't be used.
    """
    if config != "-" and not storage.exists(config):
        raise ConfigError(f"there is no config file {config}; `raypipe config` prints one to start from")
    text = "" if config == "-" else storage.read_bytes(config).decode()
    return load_config(text, overrides or [])


def open_run(config: str, overrides: list[str] | None) -> Any:
    """The steps of a config file and overrides, a `raypipe.run.Run`."""
    resolved = read_config(config, overrides)
    from raypipe.run import Run  # torch and ray take seconds to import; --help shouldn't

    return Run(resolved)
