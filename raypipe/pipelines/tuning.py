"""An experiment of Ray Tune that goes on where it was interrupted."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from ray import tune

from raypipe import storage
from raypipe.screen.step import current
from raypipe.screen.step import step as counting


def run_experiment(
    step: Callable[..., None],
    *,
    known: Mapping[str, Any],
    space: dict[str, Any] | None,
    settings: tune.TuneConfig,
    number: int,
    folder: str,
    name: str,
    verbose: int | None = None,
) -> tune.ResultGrid:
    """Runs every trial that isn't done yet.

    Args:
        step: a trial: called with its values, and `known` by name.
        known: what all trials are given.
        space: of the values; None leaves it to the search algorithm of `settings`.
        settings: how trials are chosen, and which of them are stopped.
        number: of trials, at most.
        folder: URI of the folder that holds the experiment.
        name: of the experiment's own folder.
        verbose: how much Ray Tune prints; None leaves it to Ray.

    Raises:
        KeyboardInterrupt: at Ctrl-C, once the state is saved.
    """
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # what relative paths on sys.path count from
    fs, path = storage.arrow_filesystem(folder)
    # A trial waits for what it starts, as a driver does: it belongs where no node goes away and takes no CPU from the
    # streams and tasks.
    place = tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])
    trainable = tune.with_resources(tune.with_parameters(step, **known), place)
    experiment = storage.join(path, name)
    if tune.Tuner.can_restore(experiment, storage_filesystem=fs):
        tuner = tune.Tuner.restore(experiment, trainable, restart_errored=True, storage_filesystem=fs)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=settings,
            run_config=tune.RunConfig(
                name=name, storage_path=path, storage_filesystem=fs, verbose=verbose, callbacks=[_Ended(number)]
            ),
        )
    # Tune prints tables, which belong into the log.
    with interrupted_by_sigint(), counting(name, unit="trials"), redirect_stdout(sys.stderr):
        return tuner.fit()


@contextmanager
def interrupted_by_sigint() -> Iterator[None]:
    """Makes Ctrl-C the interrupt that it is elsewhere, within and afterwards.

    Tune's handler ends the experiment, which saves its state and returns the trials so far as if they were all: a
    setting would be chosen of them. Where it isn't called it stays, and goes on ending the finished experiment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "0"  # without a handler of Tune's an interrupt would lose its state
    before = signal.getsignal(signal.SIGINT)
    was_called = False
    try:
        yield
        was_called = signal.getsignal(signal.SIGINT) is before  # Tune's puts back what it found
    finally:
        signal.signal(signal.SIGINT, before)
    if was_called:
        raise KeyboardInterrupt


class _Ended(tune.Callback):
    """Counts trials that have ended, for the person who waits; of an experiment that goes on, those of now."""

    def __init__(self, total: int) -> None:
        self.done, self.total = 0, total

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Counts one."""
        self._count()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Counts one that failed."""
        self._count()

    def _count(self) -> None:
        self.done += 1
        if (step := current()) is not None:
            step.update(self.done, self.total)
