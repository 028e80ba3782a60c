"""Reads the config that a file names."""

from collections.abc import Sequence

from raypipe import storage
from raypipe.config import ConfigError, RunConfig, load_config
from raypipe.messages.nearest import nearest_name


def read_config(config: str, overrides: Sequence[str] | None = None) -> RunConfig:
    """The resolved config of a file and overrides.

    Args:
        config: YAML file or URI; `-` takes the defaults.
        overrides: dotted ones, such as `walk.beta=4`.

    Raises:
        ConfigError: if it can't be used.
    """
    if config != "-" and not storage.exists(config):
        raise ConfigError(
            f"there is no config file {config}{nearest_name(config)}; `raypipe config` prints one to start from"
        )
    try:
        text = "" if config == "-" else storage.read_bytes(config).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{config} is no YAML file: it isn't text in UTF-8 ({error.reason})") from error
    return load_config(text, overrides or [])
