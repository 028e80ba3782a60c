"""Everything that led to one mask: its row goes once more through the run's own stages, without Ray."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

import raypipe
from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import RunConfig
from raypipe.data.arrays import decode_cam
from raypipe.data.images import decode_mask
from raypipe.data.manifest import nearest
from raypipe.data.names import file_stem
from raypipe.faults import sentence
from raypipe.ops.cam import upsample_to_image
from raypipe.ops.metrics import confusion_matrix, iou, mean_iou
from raypipe.ops.random_walk import propagate_at
from raypipe.pages.finished import FinishedMasks, NotFinished, find_masks
from raypipe.pages.truth import usable_truth
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import masks_plan, taking_up
from raypipe.pipelines.needs import has_given_seeds
from raypipe.pipelines.steps import compute_cams, make_trimaps
from raypipe.reports.explain import Explanation, WalkState, render_explanation
from raypipe.schema import GRID_STRIDE, MASKS, SEEDS, columns
from raypipe.stages.base import Row, Stage
from raypipe.stages.judge import GateWalk
from raypipe.stages.propagate import WALK_TOLERANCE, PropagateCams, grid_scores
from raypipe.stages.trimaps import MakeTrimaps
from raypipe.stages.trimaps_on_device import MakeTrimapsOnDevice
from raypipe.streams.collect import collect, outputs_of, quarantined, with_ids, with_imported

STEPS = (0, 1, 4, 16, 64, 256, 1024)
"""Numbers of steps that are shown, up to the run's own."""

_SEED = columns(SEEDS, "image_id", "cam", "cam_height", "cam_width", "trimap")

_MOST_NAMES = 5000
"""Ids among which the nearest to an unknown one is looked for: of a million it takes a minute."""


def write_explanation(context: Context, image_id: str, *, pixel: tuple[int, int] | None = None) -> str:
    """Writes the page of one mask, `<out>/explain/<digest of the masks>/<image_id>.html`; its URI.

    Args:
        context: config and manifest.
        image_id: the mask's.
        pixel: row and column, in the original image, of the pixel whose cell is looked at closely; None takes the
            cell with the highest score of an object.

    Raises:
        ValueError: if the image or the pixel isn't there, or the image is in quarantine.
        NotFinished: if there is no mask of it yet.
    """
    row = manifest_row(context, image_id)
    finished = find_masks(context)
    explanation = explain(finished, row, pixel=pixel)
    uri = storage.join(context.config.out, page_path(finished.masks, image_id))
    storage.write_bytes_atomic(uri, render_explanation(explanation).encode())
    return uri


def page_path(masks: Artifact, image_id: str) -> str:
    """Where the page of a mask is below the run's folder; its characters need no escape in a URL."""
    return f"explain/{masks.digest}/{file_stem(image_id)}.html"


def manifest_row(context: Context, image_id: str) -> Row:
    """The manifest's row of an image that gets a mask.

    Raises:
        ValueError: if there is none.
    """
    rows = context.rows(context.config.splits.masks)
    if found := collect(with_ids(rows, [image_id])).to_pylist():
        row: Row = found[0]
        return row
    if other := collect(with_ids(context.rows(None), [image_id])).to_pylist():
        raise ValueError(
            f"{image_id} is of split {other[0]['split']!r}, which gets no masks: "
            f"splits.masks={list(context.config.splits.masks or ())}"
        )
    begins = image_id[: len(image_id) // 2]
    names = [row["image_id"] for row in collect(rows.select(["image_id"])).to_pylist()]
    candidates = ([name for name in names if name.startswith(begins)] or names)[:_MOST_NAMES]
    raise ValueError(f"the manifest has no image_id {image_id!r}{nearest(image_id, candidates)}")


def explain(finished: FinishedMasks, row: Row, *, pixel: tuple[int, int] | None = None) -> Explanation:
    """Makes one mask again and keeps what came on the way. Arguments and errors: see `write_explanation`."""
    context = finished.context
    if context.config.images.tile is not None:
        raise ValueError(
            "an explanation shows an image as the networks see it at once, which is none of a run in tiles: "
            "images.tile=null explains its reduced image, by other masks"
        )
    stored = _stored_mask(finished, row["image_id"])
    plan = masks_plan(context, maps=finished.maps, affinity=finished.affinity, judge=finished.judge)
    this = with_ids(context.rows(None), [row["image_id"]])
    seed = next(iter(outputs_of(finished.seeds, this, _SEED).to_pylist()), None)
    if seed is not None:
        plan = taking_up(plan, finished.seeds, compute_cams(context, finished.maps))
    else:
        row = with_imported(collect(this), plan).to_pylist()[0]
    for stage in plan.steps:
        stage.setup("cpu")
    states = _through(plan.steps, row if seed is None else row | seed)
    final = states[-1]
    # Before the masks are encoded, whose sizes and classes are others.
    decoded = next(state for state in states if "scores" in state)
    walker = next(
        stage.walk if isinstance(stage, GateWalk) else stage
        for stage in plan.steps
        if isinstance(stage, GateWalk | PropagateCams)
    )
    pixels: NDArray[np.uint8] = decoded["pixels"]
    cam = decode_cam(decoded["cam"], height=decoded["cam_height"], width=decoded["cam_width"])
    affinity = walker.source([pixels])[0].affinity(radius=walker.radius)
    taken = walker
    if decoded["walk_steps"] is not None:
        taken = replace(walker, alpha=decoded["walk_alpha"], num_steps=decoded["walk_steps"])
    start = grid_scores(
        torch.from_numpy(cam), alphas=[taken.alpha], count_padding=taken.count_padding, cam_stride=taken.cam_stride
    ).to(affinity.device)
    cell = _cell(pixel, start, decoded)
    mask = decode_mask(final["mask"])
    truth = usable_truth(row, context.classes, size=mask.shape)
    class_iou, mean = _scores(truth, mask, context.classes)
    return Explanation(
        image_id=row["image_id"],
        classes=context.classes,
        labels=tuple(row["labels"]),
        pixels=pixels,
        class_ids=tuple(decoded["class_ids"]),
        cam=cam,
        trimap=_trimap(finished, decoded, seed),
        cell=cell,
        affinity=affinity.cpu().numpy(),
        radius=walker.radius,
        beta=walker.beta,
        walk=_walk(taken, start, affinity, cell, decoded),
        walk_mask=None if final["walk_mask"] is None else decode_mask(final["walk_mask"]),
        mask_png=final["mask"],
        mask=mask,
        confidence=decode_mask(final["confidence"]),
        predicted_iou=pa.scalar(final["predicted_iou"], MASKS.field("predicted_iou").type).as_py(),
        truth=truth,
        class_iou=class_iou,
        mean_iou=mean,
        num_different=int(np.count_nonzero(decode_mask(stored["mask"]) != mask)),
        notes=_notes(finished, given=walker, taken=taken, from_seeds=seed is not None),
        settings=_settings(context.config),
        provenance=_provenance(finished, from_seeds=seed is not None),
    )


def _stored_mask(finished: FinishedMasks, image_id: str) -> Row:
    """The row that the run wrote.

    Raises:
        ValueError: if the image is in quarantine.
        NotFinished: if it has no mask yet.
    """
    this = with_ids(finished.context.rows(None), [image_id])
    for stored in outputs_of(finished.masks, this, columns(MASKS, "image_id", "mask")).to_pylist():
        row: Row = stored
        return row
    for failed in quarantined(finished.masks, this).to_pylist():
        raise ValueError(f"{image_id} has no mask, it is in quarantine: {sentence(failed['error_reason'])}")
    raise NotFinished(f"{image_id} has no mask yet: the run was interrupted; `raypipe masks CONFIG` goes on")


def _through(stages: Sequence[Stage], row: Row) -> list[Row]:
    """The row after each stage, with what was there before."""
    states = [row]
    for stage in stages:
        (state,) = stage.process_all([states[-1]])
        if state.get("error_stage") is not None:
            raise ValueError(
                f"{row['image_id']} can't be computed again, although the run has a mask of it: "
                + sentence(state["error_reason"])
            )
        states.append(state)
    return states


def _cell(pixel: tuple[int, int] | None, start: Tensor, decoded: Row) -> tuple[int, int]:
    """The cell of a pixel of the original image, or the one with the highest score of an object."""
    height, width = start.shape[1:]
    if pixel is None:
        if len(start) == 1:
            return height // 2, width // 2
        best = int(start[1:].amax(dim=0).argmax())
        return best // width, best % width
    originals = (decoded["original_height"], decoded["original_width"])
    if not all(0 <= index < side for index, side in zip(pixel, originals, strict=True)):
        raise ValueError(
            f"pixel {pixel[0]},{pixel[1]} lies outside the image: it has {originals[0]} rows and {originals[1]} columns"
        )
    sides = (decoded["height"], decoded["width"])
    row, column = (index * side // full for index, side, full in zip(pixel, sides, originals, strict=True))
    return row // GRID_STRIDE, column // GRID_STRIDE


def _walk(
    walker: PropagateCams, start: Tensor, affinity: Tensor, cell: tuple[int, int], decoded: Row
) -> list[WalkState]:
    """The walk at several numbers of steps."""
    numbers = [*(number for number in STEPS if number < walker.num_steps), walker.num_steps]
    chosen = torch.zeros_like(start[:1])
    chosen[0, *cell] = 1
    options: dict[str, Any] = {"beta": walker.beta, "steps": numbers, "tol": WALK_TOLERANCE}
    # An image without labels isn't walked: its background is 1 everywhere, which no walk changes.
    walked, reach = (propagate_at(maps, affinity, **options) for maps in (start, chosen))
    names = np.array([0, *decoded["class_ids"]], dtype=np.uint8)
    size = (decoded["height"], decoded["width"])
    return [
        WalkState(
            num_steps=number,
            mask=names[upsample_to_image(scores, size=size, stride=GRID_STRIDE).argmax(dim=0).cpu().numpy()],
            reach=weights[0].cpu().numpy(),
            scores=tuple(scores[:, cell[0], cell[1]].tolist()),
        )
        for number, scores, weights in zip(numbers, walked, reach, strict=True)
    ]


def _trimap(finished: FinishedMasks, decoded: Row, seed: Row | None) -> NDArray[np.uint8]:
    """The seeds' trimap, or the one that they would have: images that aren't trained on need none."""
    stored = None if seed is None else seed["trimap"]
    if stored is None:
        making = make_trimaps(finished.context)
        assert isinstance(making, MakeTrimaps | MakeTrimapsOnDevice)  # of tiles nothing is explained
        making = replace(making, splits=None)
        making.setup("cpu")
        stored = making.process(decoded)["trimap"]
    return decode_mask(stored)


def _scores(
    truth: NDArray[np.uint8] | None, mask: NDArray[np.uint8], classes: Sequence[str]
) -> tuple[Mapping[str, float], float | None]:
    if truth is None or truth.shape != mask.shape:
        return {}, None
    confusion = confusion_matrix(truth, mask, num_classes=len(classes) + 1)
    values = zip(("background", *classes), iou(confusion), strict=True)
    return {name: float(value) for name, value in values if not np.isnan(value)}, mean_iou(confusion)


def _notes(finished: FinishedMasks, *, given: PropagateCams, taken: PropagateCams, from_seeds: bool) -> list[str]:
    config = finished.context.config
    notes = [f"Gate of the run: {decision}." for decision in finished.decisions]
    if (taken.alpha, taken.num_steps) != (given.alpha, given.num_steps):
        notes.append(
            f"This image's walk has {taken.num_steps} steps and alpha {taken.alpha:g}, where the run's has "
            f"{given.num_steps} and {given.alpha:g}: its mask parts the image's features and colours better."
        )
    if config.refinement.gate == "image":
        notes.append(
            "The run keeps the better of an image's masks before and after what refines them (refinement.gate=image)."
        )
    if config.inference.mode == "throughput":
        notes.append("The run let images share passes (inference.mode=throughput), so a few pixels may differ.")
    if config.refinement.device == "gpu":
        notes.append("The run refined its masks on a GPU (refinement.device=gpu), so a few pixels may differ.")
    notes.append("The maps are those of the seeds." if from_seeds else "The maps were computed again.")
    return notes


def _settings(config: RunConfig) -> list[tuple[str, str]]:
    """The options that a mask depends on, once its networks are trained."""
    found = config.model_dump(mode="json", include={"images", "cams", "walk", "refinement", "inference"})
    return [
        (f"{section}.{name}", json.dumps(value, ensure_ascii=False))
        for section, options in found.items()
        for name, value in options.items()
    ]


def _provenance(finished: FinishedMasks, *, from_seeds: bool) -> list[tuple[str, str]]:
    maps = {"given seeds": finished.maps} if has_given_seeds(finished.context) else {}
    affinity = "frozen features" if finished.context.config.walk.affinity == "frozen" else "AffinityNet"
    networks = {**maps, "classifier": finished.judge, affinity: finished.affinity}
    made = [(name, f"{network.uri} (digest {network.digest})") for name, network in networks.items() if network]
    if from_seeds:
        made.append(("seeds", finished.seeds.uri))
    return [*made, ("masks", finished.masks.uri), ("raypipe", raypipe.__version__)]
