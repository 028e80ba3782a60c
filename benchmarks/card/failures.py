"""What fails becomes a row in error, and no other row: NaN, images that don't fit into memory. Tiny images are fine."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn

from card.against_cpu import maps_of, with_random_maps
from card.report import Report
from card.setting import CLASS_IDS, MODES, Setting, decoded_rows, photograph
from raypipe.config import Cams
from raypipe.data.arrays import decode_cam, encode_cam
from raypipe.stages.base import Row, run_stages


def check_nan(report: Report, setting: Setting) -> None:
    """NaN in a network's weights, which spoils every row, and infinity in one row's maps, which spoils that row."""
    for mode in MODES:
        cams = setting.cams(setting.sizes.checked, mode)
        _spoil(cams.network)
        rows = cams.process_all(decoded_rows([(setting.sizes.check_side,) * 2] * 2))
        _check_errors(report, f"NaN in the classifier's weights, {mode}", rows, [0, 1], "ComputeCams")
    side = setting.sizes.check_side
    rows = with_random_maps(decoded_rows([(side, side)] * 3))
    for mode in MODES:
        stage: Any = setting.walk(setting.sizes.checked, mode, precision="fp32")
        expected = stage.process_all(rows)
        cam = decode_cam(rows[1]["cam"], height=rows[1]["cam_height"], width=rows[1]["cam_width"])
        cam[0, 0, 0] = math.inf
        computed = stage.process_all([rows[0], rows[1] | {"cam": encode_cam(cam)}, rows[2]])
        _check_errors(report, f"infinity in a map, {mode}", computed, [1], "PropagateCams")
        others = [[_scores(row) for row in (all_[0], all_[2])] for all_ in (computed, expected)]
        report.close(f"infinity in a map, {mode}: the other rows", *others, atol=1e-3)
        _spoil(stage.source.network)
        _check_errors(
            report, f"NaN in AffinityNet's weights, {mode}", stage.process_all(rows), [0, 1, 2], "PropagateCams"
        )


@torch.no_grad()
def _spoil(network: nn.Module) -> None:
    next(network.parameters()).fill_(math.nan)


def check_memory(report: Report, setting: Setting) -> None:
    """An image that doesn't fit alone among others that do: on a card, the process gets less memory."""
    sizes = setting.sizes
    small, large = decoded_rows([(sizes.side, sizes.side)] * 2), decoded_rows([(sizes.too_large, sizes.too_large)])
    for mode in MODES:
        stage = setting.cams(sizes.main, mode, cams=Cams(scales=(1.0,)), precision="fp32")
        expected = stage.process_all(small)
        limit = _limited_card if setting.has_card else _limited_network
        with limit(stage, small, large, sizes.side):
            computed = stage.process_all([small[0], large[0], small[1]])
        _check_errors(report, f"memory runs out, {mode}", computed, [1], "ComputeCams")
        reason = str(computed[1].get("error_reason"))
        told = f"{sizes.too_large} x {sizes.too_large} pixels" in reason and "doesn't fit" in reason
        report.check(f"memory runs out, {mode}: the reason", reason[:90], demanded="size, doesn't fit", held=told)
        survivors = maps_of([computed[0], computed[2]])
        report.close(f"memory runs out, {mode}: the other rows", survivors, maps_of(expected), atol=2e-3)


def check_tiny(report: Report, setting: Setting) -> None:
    """Images whose grids have one cell, one row or one column, from files to masks."""
    shapes = [(1, 1), (8, 8), (5, 90), (90, 5), (1, 90)]
    images = []
    for seed, shape in enumerate(shapes):
        buffer = io.BytesIO()
        Image.fromarray(photograph(seed, *shape)).save(buffer, format="PNG")
        images.append(buffer.getvalue())
    labels = pa.array([CLASS_IDS] * len(images), pa.list_(pa.uint8()))
    table = pa.table({"image": pa.array(images, pa.binary()), "class_ids": labels})
    for mode in MODES:
        rows = run_stages(setting.stages(setting.sizes.checked, mode, "pamr"), table).to_pylist()
        _check_errors(report, f"images of 1x1 to 1x90 pixels, {mode}", rows, [], "")
        sizes = [(row["height"], row["width"]) for row in rows if row["mask"] is not None]
        report.check(f"images of 1x1 to 1x90 pixels, {mode}: masks", sizes, demanded=str(shapes), held=sizes == shapes)


def _check_errors(report: Report, what: str, rows: list[Row], failing: list[int], stage: str) -> None:
    """Adds the check that these rows and no others are in error, by that stage."""
    failed = {index: row["error_stage"] for index, row in enumerate(rows) if row.get("error_stage") is not None}
    held = failed == dict.fromkeys(failing, stage)
    reasons = sorted({str(rows[index]["error_reason"])[:90] for index in failed if index not in failing})
    report.check(what, f"rows in error: {[*failed]} {reasons or ''}", demanded=str(failing), held=held)


def _scores(row: Row) -> Tensor:
    return torch.from_numpy(np.frombuffer(row.get("scores") or b"", "<f4").copy())


@contextmanager
def _limited_card(stage: Any, small: list[Row], large: list[Row], _: int) -> Iterator[None]:
    """Leaves this process memory halfway between what the small images take and what the large one does."""
    least, most = _peak(lambda: stage.process_all(small)), _peak(lambda: stage.process_all(large))
    if most <= least:
        raise RuntimeError(f"the large image takes {most} bytes, the others {least}: it is not large enough")
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((least + most) / 2 / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def _peak(call: Callable[[], object]) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_reserved()


@contextmanager
def _limited_network(stage: Any, _small: list[Row], _large: list[Row], side: int) -> Iterator[None]:
    """Makes a CPU's network raise a card's error for more pixels than the small images and their mirror images have."""
    cam = stage.network.cam

    def limited(x: Tensor) -> Tensor:
        if x.shape[0] * x.shape[2] * x.shape[3] > 4 * side * side:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        result: Tensor = cam(x)
        return result

    stage.network.cam = limited
    try:
        yield
    finally:
        stage.network.cam = cam
