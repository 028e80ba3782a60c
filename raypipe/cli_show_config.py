"""`raypipe config`: all options and what they do, or with --for a short config that fits a dataset, with reasons."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from raypipe.cli_config import Overrides
from raypipe.config import load_config
from raypipe.config.base import Section
from raypipe.config.fitting import Fingerprint, Fitted, commented_yaml, fit, notes, training_steps
from raypipe.config.loading import presets
from raypipe.config.overrides import option_type, read_override
from raypipe.config.reference import commented_config
from raypipe.words import counted


def show_config(
    preset: Annotated[str | None, typer.Option(help=f"Start from this preset: {', '.join(presets())}.")] = None,
    manifest: Annotated[
        str | None, typer.Option("--for", metavar="MANIFEST", help="Fit it to this dataset, with reasons.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print a config to start from: every option and what it does, or with --for what is other than usual and why."""
    if manifest is not None:
        typer.echo(fitted_config(manifest, preset=preset, overrides=overrides or []), nl=False)
        return
    base = ["manifest=manifest.parquet", "out=out"]
    config = load_config(f"preset: {preset}" if preset else "", [*base, *(overrides or [])])
    typer.echo(commented_config(config), nl=False)


def fitted_config(manifest: str, *, preset: str | None, overrides: Sequence[str]) -> str:
    """The YAML text.

    Args:
        manifest: URI of the dataset's manifest.
        preset: to start from; None starts from the defaults.
        overrides: as on the command line; they stand in the text, and no rule replaces them.

    Raises:
        ConfigError: the preset or an override can't be used.
        ValueError: the manifest can't be read, or no row has usable labels.
    """
    read = [read_override(each) for each in ["out=out", *overrides]]
    given = {name: value for override in read for name, value in _options(*override)} | {"manifest": manifest}
    start = f"preset: {preset}" if preset else ""
    config = load_config(start, ["out=out", *overrides, f"manifest={manifest}"])

    from raypipe.doctor.fingerprint import read_fingerprint  # torch takes seconds
    from raypipe.pipelines.context import open_context

    found = read_fingerprint(open_context(config))
    entries = [Fitted(name, value, "") for name, value in ({"preset": preset} if preset else {}).items()]
    entries += [Fitted(name, value, "") for name, value in given.items()]
    entries += fit(config, found, given=given)
    about = [_summary(found, max_side=config.images.max_side), *notes(config, found)]
    fitted = load_config(commented_yaml(entries, heading=about))  # what is written can be read
    return commented_yaml(entries, heading=[*about, training_steps(fitted, found)])


def _options(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The options of an override, which may be a section's mapping."""
    kind = option_type(name)
    if not (isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, Section)):
        yield name, value
        return
    for option, of_option in value.items():
        yield from _options(f"{name}.{option}", of_option)


def _summary(found: Fingerprint, *, max_side: int) -> str:
    size = "" if found.long_side is None else f", a long side of {found.long_side} pixels (median)"
    if found.long_side == max_side:
        size = f", at least half of them {max_side} pixels long or more (images.max_side)"
    return (
        f"{counted(found.num_images, 'images')} with labels, {counted(len(found.class_images), 'classes')}, "
        f"{found.labels_an_image:.1f} labels an image{size}"
    )
