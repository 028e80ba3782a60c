"""What the commands have in common: a config file and dotted overrides."""

import importlib
import logging
import threading
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raypipe import storage
from raypipe.cli_logs import open_log
from raypipe.config import RunConfig
from raypipe.config_file import read_config as read_config
from raypipe.screen.step import plan_steps

if TYPE_CHECKING:
    from raypipe.doctor.workload import Step
    from raypipe.pipelines.context import Context, Retrain, Retried

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file or URI; - takes the defaults.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Dotted overrides, such as walk.beta=4.")
]

logger = logging.getLogger(__name__)

named_seeds: ContextVar[str | None] = ContextVar("named_seeds", default=None)
"""The code that `raypipe --seeds NAME` names; None where the command names none."""


def open_run(
    config: str,
    overrides: list[str] | None,
    *,
    until: "Step | None" = None,
    mostly_done: bool = False,
    trains: bool = True,
) -> Any:
    """The steps of a config file and overrides, a `raypipe.run.Run`, with Ray connected; see `connect_run`."""
    return connect_run(read_config(config, overrides), until=until, mostly_done=mostly_done, trains=trains)


def connect_run(
    config: RunConfig,
    *,
    retrain: "Retrain" = "none",
    retry_quarantined: "Retried" = "none",
    whole: bool = False,
    until: "Step | None" = None,
    mostly_done: bool = False,
    trains: bool = True,
) -> Any:
    """The steps of a config, a `raypipe.run.Run`, with Ray connected and its nodes looked at.

    Args:
        config: of the run.
        retrain: as of `Context`.
        retry_quarantined: as of `Context`.
        whole: all steps will be taken: whatever doesn't fit the cluster is refused now.
        until: the step that will be taken, with those before it: the same is refused of them.
        mostly_done: the command is one for a run that has come to its end: where a Ray would have to be started, and
            the driver reads the rows itself, that waits until something is to be computed.
        trains: as of `Context`: whoever looks at masks or hands them over expects no hours of training.

    Raises:
        ValueError: if the nodes don't agree, or what is asked for doesn't fit.
    """
    from raypipe.pipelines.context import CONFIG_FILE, open_context

    context = open_context(
        config, retrain=retrain, retry_quarantined=retry_quarantined, seeds=named_seeds.get()
    )  # what is wrong with it is said at once
    context = replace(context, trains=trains)
    if named_seeds.get() or config.checkpoints.seeds:
        from raypipe.pipelines.seeds import check_given_seeds

        check_given_seeds(context)
    storage.exists(storage.join(config.out, CONFIG_FILE))  # so is an address that is wrong: steps wait for storage
    open_log(config.out)
    # torch takes seconds to import, and so does Ray to start: both at once, and neither for --help.
    importing = threading.Thread(target=importlib.import_module, args=("raypipe.run",))
    importing.start()
    from raypipe.cluster.connect import cluster_address, connect

    if mostly_done and not cluster_address(config.cluster):
        importing.join()
        from raypipe.run import Run
        from raypipe.streams.tasks import FEW_ROWS

        if len(context.manifest) <= FEW_ROWS:
            return Run(replace(context, start=cache(partial(_start, context, until))))
    if cluster_address(config.cluster):
        # A cluster is connected to in no time. And while a submitted job connects, its working directory is away for a
        # moment, on which imports beside it fail.
        importing.join()
    connect(config.cluster)
    importing.join()
    from raypipe.doctor.preflight import preflight, preflight_nodes
    from raypipe.doctor.workload import step_names
    from raypipe.run import Run

    if whole:
        preflight(context)
    else:
        preflight_nodes(context, until=until)
    if whole or until:
        plan_steps(step_names(context, until or "scores"))
    return Run(context)


def tell_differences(config: "RunConfig") -> None:
    """Says in the log which options the last run of the same `out` had otherwise."""
    from raypipe.pipelines.last_run import find_last_run

    last = find_last_run(config.out)
    if last is not None and (differences := last.differences(config)):
        logger.info("other options than in the last run of %s: %s", config.out, ", ".join(differences))


def _start(context: "Context", until: "Step | None") -> None:
    """Connects to Ray now, and looks at its nodes."""
    from raypipe.cluster.connect import connect
    from raypipe.doctor.preflight import preflight_nodes

    connect(context.config.cluster)
    preflight_nodes(context, until=until)
