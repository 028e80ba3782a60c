"""Which networks an output folder has in use: the first ones, until an option changes or they are renewed.

A network's own folder follows from all that it was trained of, rows included. So that a set may grow without a training
for each new row, `<out>/in_use/<task>.json` names the network that was trained with the same options on the rows of
then.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.checkpoints import Task, has_checkpoint

logger = logging.getLogger(__name__)

FOLDER = "in_use"


class OtherClasses(ValueError):  # noqa: N818 - says what is wrong
    """The networks in use were trained for other classes than the manifest's."""


@dataclass(frozen=True)
class Use:
    """A network in use."""

    network: Artifact
    num_rows: int
    """That it was trained on."""
    is_of_now: bool
    """Those are the rows that it would be trained on now."""


def find_use(out: str, task: Task, *, options: str, classes: Sequence[str], rows: str) -> Use | None:
    """The network in use; None where there is none for these options.

    Args:
        out: the run's folder.
        task: the network's.
        options: digest of all that it is trained of but rows and classes.
        classes: the manifest's.
        rows: digest of the rows that it would be trained on now.

    Raises:
        OtherClasses: if networks in use were trained for other classes.
    """
    found = _read(out, task)
    if found is None:
        return None
    if found["classes"] != list(classes):
        raise OtherClasses(
            f"{out} uses a {task} of the classes {found['classes']}, and the manifest has {list(classes)}: "
            "`raypipe run --retrain=all` trains anew, and another `out` leaves what is there as it is"
        )
    used = found["networks"].get(options)
    if used is None or not has_checkpoint(used["uri"]):
        return None
    return Use(Artifact(used["uri"], used["digest"]), used["num_rows"], used["rows"] == rows)


def find_in_use(out: str, task: Task, *, options: str, classes: Sequence[str], rows: str) -> Artifact | None:
    """The network of `find_use`, for a run: where it was trained on other rows, the log says so, and a status."""
    used = find_use(out, task, options=options, classes=classes, rows=rows)
    if used is None:
        return None
    if not used.is_of_now:
        logger.debug(
            "%s: in use is the one that was trained on %d images; those of the manifest are others now, and "
            "`raypipe run --retrain=all` trains on them",
            task,
            used.num_rows,
        )
    return used.network


def put_in_use(
    out: str, task: Task, network: Artifact, *, options: str, classes: Sequence[str], rows: str, num_rows: int
) -> None:
    """Records a network as the one in use; arguments as of `find_use`."""
    found = _read(out, task)
    networks = found["networks"] if found and found["classes"] == list(classes) else {}
    networks[options] = {"uri": network.uri, "digest": network.digest, "rows": rows, "num_rows": num_rows}
    content = {"classes": list(classes), "networks": networks}
    storage.write_bytes_atomic(_uri(out, task), json.dumps(content, indent=1, ensure_ascii=False).encode())


def _read(out: str, task: Task) -> dict[str, Any] | None:
    uri = _uri(out, task)
    found: dict[str, Any] | None = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else None
    return found


def _uri(out: str, task: Task) -> str:
    return storage.join(out, FOLDER, f"{task}.json")
