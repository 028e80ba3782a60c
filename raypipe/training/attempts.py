"""Starts a training again after a failure, as long as states come between failures."""

import logging
from collections.abc import Callable
from pathlib import PurePosixPath

from ray.exceptions import RayActorError
from ray.train import Result, TrainingFailedError, WorkerGroupError

from raypipe import storage

logger = logging.getLogger(__name__)


class NoProgress(RuntimeError):  # noqa: N818 - says what is wrong
    """A training failed several times in a row, and no state was saved in between."""


def fit_until_done(
    fit: Callable[[], Result], last_state: Callable[[], Result | None], *, name: str, folder: str, max_failures: int
) -> Result:
    """Runs a training, and again from its last state where workers, their nodes or Ray Train's controller were lost.

    Failures count from the last new state on: on nodes that come and go, a training has any number of them.
    A node that is taken away after a notice is no failure; Ray Train goes on after it by itself.

    Args:
        fit: one attempt.
        last_state: reads where the next attempt will go on, as of Ray Train: `metrics` are a `Position`'s; None if
            nothing is saved.
        name: the training's, for messages.
        folder: URI of the folder with the states.
        max_failures: how many failures in a row, without a new state between them, are followed by another attempt.

    Raises:
        NoProgress: from the last failure, when there were more.
    """
    failures, before = 0, _path(last_state())
    while True:
        try:
            return fit()
        except (TrainingFailedError, RayActorError) as error:
            cause, failure = _in_words(error), error
        state = last_state()
        failures = failures + 1 if _path(state) == before else 1
        before, place = _path(state), place_of(state, folder)
        if failures > max_failures:
            last = f"The last state is {place}; the same command goes on from there" if place else "No state was saved"
            raise NoProgress(
                f"{name}: {failures} failures in a row without a new state; the last one: {cause}. {last}. A worker "
                "that ends without an error of its own mostly lacked memory: take a smaller batch_size or crop_size. "
                "Where nodes are lost faster than states come, lower cluster.state_minutes"
            ) from failure
        logger.warning("%s %s: %s", name, f"goes on from {place}" if place else "begins again", cause)


def _path(state: Result | None) -> str | None:
    return None if state is None or state.checkpoint is None else state.checkpoint.path


def place_of(state: Result | None, folder: str) -> str | None:
    """Which epoch and step a state is of, and its URI, in words; None where nothing is saved."""
    path = _path(state)
    if state is None or path is None or state.metrics is None:
        return None
    uri = storage.join(folder, PurePosixPath(path).name)
    return f"epoch {state.metrics['epoch']}, step {state.metrics['step']} ({uri})"


def _in_words(error: Exception) -> str:
    if isinstance(error, WorkerGroupError):
        failures = error.worker_failures.items()
        return "; ".join(f"training worker {rank} failed: {type(why).__name__}: {why}" for rank, why in failures)
    if isinstance(error, RayActorError):
        return f"the training's controller was lost: {error}"
    return str(error)
