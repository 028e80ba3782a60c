"""`raypipe status`: what is done of a run, what it would compute now, and why."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from raypipe import storage
from raypipe.cli_config import ConfigFile, Overrides, named_seeds, read_config

if TYPE_CHECKING:
    from raypipe.config import RunConfig
    from raypipe.pipelines.context import Context, Retrain, Retried

logger = logging.getLogger(__name__)


def status(config: ConfigFile, overrides: Overrides = None) -> None:
    """Say what is done, what `raypipe run` would compute now and why, where the masks are; computes nothing."""
    from raypipe.pipelines.context import open_context
    from raypipe.status.look import look_whatever  # torch takes seconds
    from raypipe.status.text import describe

    typer.echo(describe(look_whatever(open_context(read_config(config, overrides), seeds=named_seeds.get()))))


def show_dry_run(config: "RunConfig", *, retrain: "Retrain", retry_quarantined: "Retried", reuse_out: bool) -> None:
    """Prints the status of a run that isn't started, and refuses what that would refuse of its folder.

    Args:
        config: of the run.
        retrain: as of `Context`.
        retry_quarantined: as of `Context`.
        reuse_out: as of `begin_run`.

    Raises:
        ValueError: as `begin_run`.
    """
    from raypipe.pipelines.context import open_context
    from raypipe.pipelines.last_run import check_manifest
    from raypipe.status.look import look  # torch takes seconds
    from raypipe.status.text import describe

    seeds = named_seeds.get()
    context = open_context(config, retrain=retrain, retry_quarantined=retry_quarantined, seeds=seeds)
    check_manifest(context, reuse=reuse_out)
    typer.echo(describe(look(context)))


def begin_run(context: "Context", *, reuse_out: bool) -> None:
    """Says what a run will compute, and what its folder remembers of it.

    Args:
        context: config and manifest.
        reuse_out: the folder may hold a run of another manifest.

    Raises:
        ValueError: if it does and mayn't.
    """
    from raypipe.pipelines.last_run import check_manifest, remember_run
    from raypipe.status.look import look
    from raypipe.status.text import announcement

    with storage.patience():
        uris = check_manifest(context, reuse=reuse_out)
        logger.info("%s", announcement(look(context)))
        remember_run(context, uris)


def show_end(context: "Context") -> None:
    """Prints the last lines of a run that has come to its end."""
    from raypipe.status.look import look
    from raypipe.status.text import closing

    as_it_is = replace(context, retrain="none", retry_quarantined="none")  # what was to be renewed is new
    with storage.patience():
        typer.echo("\n".join(closing(look(as_it_is))))
