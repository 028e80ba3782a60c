"""One picture to its mask, from checkpoints: for a look, a demo or a service. A set of pictures is a run's work."""

import os
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raypipe import storage
from raypipe.api.masks import Mask
from raypipe.artifacts import Artifact
from raypipe.config import RunConfig, load_config, to_yaml
from raypipe.config.root import Checkpoints
from raypipe.config_file import read_config
from raypipe.data.checkpoints import Task, read_metadata
from raypipe.data.images import encode_rgb_png
from raypipe.data.manifest import Manifest, class_ids_of
from raypipe.data.opening import check_header
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import masks_plan
from raypipe.pipelines.segmenter import segment_plan
from raypipe.schema import MASKS
from raypipe.stages.base import Row, Stage
from raypipe.stages.networks import is_refit

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""A path or URI, a file's content, or pixels (H, W, 3), RGB."""

_FROM_BYTES = "image"
"""`image_id` of a picture that has no name."""


def segment_image(
    image: Picture,
    labels: Sequence[str] | None = None,
    *,
    classifier: str | None = None,
    affinity: str | None = None,
    segmenter: str | None = None,
    config: str | os.PathLike[str] | RunConfig = "-",
    overrides: Sequence[str] = (),
    device: str | None = None,
) -> Mask:
    """The mask of one picture, in this process and without Ray.

    With a classifier and an AffinityNet the mask is a run's pseudo-mask: class activation maps of the labels, walked
    and refined. It equals a run's own with the same config and device, unless the run's gate has rejected the walk or
    its refinement: that is decided on a sample of its images, and here both stay as configured.
    `FinishedRun.segment_image` knows what a run has decided, and where its checkpoints are. With a segmentation
    network no labels are needed; where some are given, no other class is possible.

    The networks of the last call are kept, so that a loop over pictures loads them once.

    Args:
        image: a path or URI, a file's content, or pixels (H, W, 3), RGB.
        labels: names of the classes that the picture shows; an empty list is a picture of nothing but background.
        classifier: folder or URI of its checkpoint, such as `out/classifier/…/checkpoint`; with `cams.refit` that of
            `out/refit/…/checkpoint`.
        affinity: that of the AffinityNet, or of the frozen backbone in its place, such as `out/affinity/…/checkpoint`.
            It may be missing where `walk.num_steps` is 0 or `walk.affinity` is `rgb`.
        segmenter: that of the segmentation network, instead of the other two.
        config: YAML file whose settings are used, or a loaded config; `-` takes the defaults. Its manifest, `out` and
            checkpoints don't matter.
        overrides: dotted ones, such as `walk.beta=4`.
        device: as torch names it; None takes the first GPU, or the CPU where there is none.

    Returns:
        The mask at the picture's own size.

    Raises:
        ValueError: checkpoints, config or labels are missing or don't go together, or the picture can't be decoded.
        TypeError: labels are one text.
        OSError: the picture or a checkpoint can't be fetched.
    """
    checkpoints: dict[Task, str | None] = {"classifier": classifier, "affinity": affinity, "segmenter": segmenter}
    given = {task: uri for task, uri in checkpoints.items() if uri is not None}
    _check(list(given), labels)
    if not isinstance(config, RunConfig):
        config = read_config(os.fspath(config), ["manifest=-", "out=-", *overrides])
    elif overrides:
        raise ValueError(f"got a loaded config and overrides {list(overrides)}: give these to `load_config`")
    settings = _for_one(config)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    networks = tuple((task, _artifact(uri, task)) for task, uri in given.items())
    if segmenter is None and affinity is None and settings.walk.affinity != "rgb" and settings.walk.num_steps:
        needed = "a frozen backbone" if settings.walk.affinity == "frozen" else "an AffinityNet"
        raise ValueError(
            f"a walk needs {needed}: give affinity=CHECKPOINT, which a run has in out/affinity/…/checkpoint; or call "
            "raypipe.open_run(CONFIG).segment_image, which finds it; or give overrides=['walk.num_steps=0'] for a mask "
            "of the maps alone"
        )
    stages, classes = _ready(to_yaml(settings), networks, labels is not None, device)
    row: Row = {
        "image_id": os.fspath(image) if isinstance(image, str | os.PathLike) else _FROM_BYTES,
        "image": _content(image),
        "labels": labels,
        "class_ids": class_ids_of(labels or [], classes),
    }
    for stage in stages:
        row |= stage.process(row)
    return Mask(pa.Table.from_pylist([row], schema=MASKS).to_pylist()[0], classes)  # rounded as it would be stored


def _check(given: list[Task], labels: Sequence[str] | None) -> None:
    if given not in (["classifier"], ["classifier", "affinity"], ["segmenter"]):
        raise ValueError(
            f"got checkpoints of {given}: give classifier and affinity, with the picture's labels, or segmenter alone"
        )
    if given[0] == "classifier" and labels is None:
        raise ValueError(
            "a classifier's maps need the picture's labels, such as ['dog', 'sofa'], or [] for none; a segmenter finds "
            "the classes itself"
        )
    if isinstance(labels, str):
        raise TypeError(f"labels are a list of class names, got {labels!r}: give [{labels!r}]")


def _for_one(config: RunConfig) -> RunConfig:
    """The config without what one picture has no use for.

    Raises:
        ValueError: it reads pictures by windows.
    """
    if config.images.by_windows:
        raise ValueError("images.bands and images.tile are a run's: give the pixels as an array, or leave them null")
    return config.model_copy(update={"checkpoints": Checkpoints(), "manifest": "-", "out": "-"})


def _artifact(uri: str, task: Task) -> Artifact:
    uri = storage.absolute(uri)
    return Artifact(uri, read_metadata(uri, task=task)["digest"])


def _content(image: Picture) -> bytes:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"pixels are uint8 of shape (H, W, 3), RGB; got {image.dtype} {image.shape}")
        return encode_rgb_png(image)
    content = image if isinstance(image, bytes) else storage.read_bytes(os.fspath(image))
    check_header(content)
    return content


@lru_cache(maxsize=1)
def _ready(
    config: str, networks: tuple[tuple[Task, Artifact], ...], labelled: bool, device: str
) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """The stages behind the one that fetches, with their networks, and the class names.

    Artifacts are known by their content, so a checkpoint that was trained anew is loaded anew.
    """
    by_task = dict(networks)
    first = networks[0][0]
    classes = tuple(read_metadata(by_task[first].uri, task=first)["classes"])
    context = Context(load_config(config), Manifest.from_rows([], classes))
    if first == "segmenter":
        plan = segment_plan(context, segmenter=by_task[first], within_labels=labelled)
    else:
        _check_same(by_task, classes)
        if context.config.cams.refit and not is_refit(read_metadata(by_task["classifier"].uri, task=first)["config"]):
            raise ValueError(
                f"cams.refit wants a classifier with refitted maps, and {by_task['classifier'].uri} has none: give the "
                "checkpoint in the run's `refit` folder, or overrides=['cams.refit=false']"
            )
        affinity = None if context.config.walk.affinity == "rgb" else by_task.get("affinity")
        plan = masks_plan(context, maps=by_task["classifier"], affinity=affinity)
    stages = plan.stages[1:]
    for stage in stages:
        stage.setup(device)
    return stages, classes


def _check_same(networks: dict[Task, Artifact], classes: tuple[str, ...]) -> None:
    if (affinity := networks.get("affinity")) is None:
        return
    others = tuple(read_metadata(affinity.uri, task="affinity")["classes"])
    if others != classes:
        raise ValueError(f"the classifier knows the classes {list(classes)}, the AffinityNet {list(others)}")
