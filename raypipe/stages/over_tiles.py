"""Stages over the tiles of a scene: each runs an ordinary stage tile by tile and joins what comes out.

A row is a scene, whatever its size, and its columns hold maps of all of it: only a tile's pixels, and what its networks
make of them, are in memory at a time. An image that isn't worked on in tiles goes through the ordinary stage as ever.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from raypipe.config import Images
from raypipe.data.arrays import cam_view, decode_labels, decode_scores, encode_labels
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.tiles import Tile, tiles_of
from raypipe.faults import ROW_ERRORS, in_words
from raypipe.ops.cam import normalize_cams
from raypipe.progress import tick
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Kind, Row, Stage
from raypipe.stages.cams import ComputeCams, encode_maps
from raypipe.stages.judge import WALK_SCORES, GateWalk
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks
from raypipe.stages.refine_on_device import RefineOnDevice
from raypipe.stages.scenes import is_tiled, scene_of
from raypipe.stages.segment import SegmentImages
from raypipe.stages.trimaps import MakeTrimaps
from raypipe.stages.trimaps_on_device import MakeTrimapsOnDevice
from raypipe.stages.walked import encode_grid

Inner = TypeVar("Inner", bound=Stage)


@dataclass(kw_only=True)
class OverTiles(Stage, Generic[Inner]):
    """A stage over tiles."""

    stage: Inner
    """What runs on each tile."""
    images: Images

    rows_at_a_time: ClassVar[int] = 1  # of a scene's arrays one set is enough

    def __post_init__(self) -> None:
        self.writes, self.leaves = self.stage.writes, self.stage.leaves  # type: ignore[misc] # as those of its class
        self.gpu_setting = self.stage.gpu_setting  # type: ignore[misc]

    @property
    def reads(self) -> tuple[str, ...]:
        """Those of the stage, and where the tiles are."""
        return (*self.stage.reads, "image_uri", "scene", "height", "width")

    @property
    def kind(self) -> Kind | None:
        """That of the stage."""
        return self.stage.kind

    def setup(self, device: str) -> None:
        """Sets the stage up."""
        self.stage.setup(device)

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Works on ordinary images together, as the stage likes, and on scenes one after the other."""
        ordinary = [row for row in rows if row.get("error_stage") is not None or not is_tiled(row)]
        done = iter(self.stage.process_all(ordinary))
        return [
            next(done) if row.get("error_stage") is not None or not is_tiled(row) else self._guarded(row)
            for row in rows
        ]

    def failed(self, row: Row, error: Exception) -> Row:
        """Returns the row in error, under the stage's own name."""
        return self.stage.failed(row, error)

    def process(self, row: Row) -> Row:
        """Works on one image.

        Raises:
            ValueError: what the stage raises, with the tile.
        """
        if not is_tiled(row):
            return self.stage.process(row)
        return self.over_tiles(row | {"opened": scene_of(row, self.images)})

    @abstractmethod
    def over_tiles(self, row: Row) -> Row:
        """Runs the stage on all tiles of a scene and joins its columns."""

    def tiles(self, row: Row) -> Iterator[Tile]:
        """The scene's tiles."""
        assert self.images.tile is not None  # of scenes that are worked on in tiles
        for tile in tiles_of(row["height"], row["width"], self.images.tile):
            tick()
            yield tile

    def on_tile(self, tile: Tile, row: Row, *, pixels: bool = True, **maps: Any) -> Row:
        """What the stage makes of one tile.

        Args:
            tile: of the scene.
            row: the scene's.
            pixels: the stage looks at the image.
            maps: columns that hold the tile's part of the scene's maps.

        Raises:
            ValueError: what the stage raises, with the tile.
        """
        try:
            part = row | {"height": tile.height, "width": tile.width} | maps
            if pixels:
                part["pixels"] = row["opened"].read(*tile.window())
            return self.run(part)
        except ROW_ERRORS as error:
            raise ValueError(f"{tile}: {in_words(error)}") from error

    def run(self, row: Row) -> Row:
        """Runs the stage on one tile's row."""
        return self.stage.process(row)


@dataclass(kw_only=True)
class CamsOverTiles(OverTiles[ComputeCams]):
    """Maps as of `ComputeCams`, normalised by the maximum of the scene: a tile may have nothing of a class."""

    def over_tiles(self, row: Row) -> Row:
        """Joins the activations of all tiles, then normalises them."""
        stride, number = self.stage.cams.out_stride, len(row["class_ids"])
        maps = np.zeros((number, *grid_of(row, stride)), np.float32)
        for tile in self.tiles(row) if number else ():
            found = self.on_tile(tile, row)["activations"]
            maps[:, *tile.kept(stride)] = found[:, *tile.inside(stride)]
        whole = torch.from_numpy(maps)
        for index in range(number):  # each for itself: all of them once more would be too much
            whole[index] = normalize_cams(whole[index, None])[0]
        return encode_maps(maps)

    def run(self, row: Row) -> Row:
        """The tile's maps before they are normalised."""
        return {"activations": self.stage.alone(row, self.stage.activations).cpu().numpy()}


@dataclass(kw_only=True)
class WalkOverTiles(OverTiles[PropagateCams | GateWalk]):
    """Walked scores; what is said of an image's walk is the mean over the tiles, weighed by their pixels."""

    def over_tiles(self, row: Row) -> Row:
        """Walks in each tile."""
        stride = self._walk.cam_stride
        cam = cam_view(row["cam"], height=row["cam_height"], width=row["cam_width"])
        scores = np.zeros((1 + len(cam), *grid_of(row, GRID_STRIDE)), np.float32)
        means = Means("predicted_iou", *(WALK_SCORES.names if isinstance(self.stage, GateWalk) else ()))
        for tile in self.tiles(row):
            part = np.ascontiguousarray(cam[:, *tile.window(stride)])
            size = {"cam_height": part.shape[1], "cam_width": part.shape[2]}
            found = self.on_tile(tile, row, pixels=len(cam) > 0, cam=part.tobytes(), **size)
            scores[:, *tile.kept(GRID_STRIDE)] = _scores(found)[:, *tile.inside(GRID_STRIDE)]
            means.add(found, tile.share)
        made = (self._walk.alpha, self._walk.num_steps) if len(cam) else (None, None)
        return encode_grid(scores, alpha=made[0], num_steps=made[1]) | means.columns()

    def run(self, row: Row) -> Row:
        """Walks in one tile as in all others: tiles that chose their walks would not fit together."""
        stage = replace(self.stage, choice="given") if isinstance(self.stage, GateWalk) else self.stage
        return stage.process(row)

    @property
    def _walk(self) -> PropagateCams:
        return self.stage.walk if isinstance(self.stage, GateWalk) else self.stage


@dataclass(kw_only=True)
class SegmentOverTiles(OverTiles[SegmentImages]):
    """Scores of the segmentation network; the classes are those that are possible in any tile."""

    def over_tiles(self, row: Row) -> Row:
        """Joins the tiles' scores class by class."""
        size = grid_of(row, GRID_STRIDE)
        planes: dict[int, NDArray[np.float32]] = {0: np.zeros(size, np.float32)}
        for tile in self.tiles(row):
            found = self.on_tile(tile, row)
            for class_id, part in zip([0, *found["class_ids"]], _scores(found), strict=True):
                plane = planes.setdefault(class_id, np.zeros(size, np.float32))
                plane[tile.kept(GRID_STRIDE)] = part[tile.inside(GRID_STRIDE)]
        present = sorted(planes)
        return {"class_ids": present[1:], **encode_grid(np.stack([planes[each] for each in present]))}


@dataclass(kw_only=True)
class RefineOverTiles(OverTiles[RefineMasks | RefineOnDevice]):
    """Masks: on the CPU as arrays with their confidence, on a device as class ids alone."""

    def over_tiles(self, row: Row) -> Row:
        """Refines each tile."""
        height, width = row["height"], row["width"]
        several, given = len(row["class_ids"]) > 0, row.get("refined")
        scores = decode_scores(row["scores"], height=row["grid_height"], width=row["grid_width"])
        refined = None if given is None else decode_labels(given, height=height, width=width)
        arrays: dict[str, NDArray[np.uint8]] = {}
        for tile in self.tiles(row):
            part = np.ascontiguousarray(scores[:, *tile.window(GRID_STRIDE)])
            maps = {"scores": part.tobytes(), "grid_height": part.shape[1], "grid_width": part.shape[2]}
            if refined is not None:
                maps["refined"] = encode_labels(refined[tile.window()])
            found = self.on_tile(tile, row, pixels=several and "image" in self.stage.reads, **maps)
            if isinstance(self.stage, RefineOnDevice):
                labels = found["refined"]
                found = {"refined": labels and decode_labels(labels, height=tile.height, width=tile.width)}
            for name, values in found.items():
                if values is not None:
                    whole = arrays.setdefault(name, np.zeros((height, width), np.uint8))
                    whole[tile.kept()] = values[tile.inside()]
        if isinstance(self.stage, RefineOnDevice):
            return {"refined": encode_labels(arrays["refined"]) if arrays else None}
        return {name: arrays.get(name) for name in self.stage.leaves}


@dataclass(kw_only=True)
class TrimapsOverTiles(OverTiles[MakeTrimaps | MakeTrimapsOnDevice]):
    """Trimaps of scenes."""

    def over_tiles(self, row: Row) -> Row:
        """Makes each tile's trimap; null where the scene's split isn't trained on."""
        if self.stage.splits is not None and row["split"] not in self.stage.splits:
            return {"trimap": None}
        cam = cam_view(row["cam"], height=row["cam_height"], width=row["cam_width"])
        trimap = np.zeros(grid_of(row, GRID_STRIDE), np.uint8)
        for tile in self.tiles(row):
            part = np.ascontiguousarray(cam[:, *tile.window(self.stage.cam_stride)])
            size = {"cam_height": part.shape[1], "cam_width": part.shape[2]}
            found = decode_mask(self.on_tile(tile, row, cam=part.tobytes(), **size)["trimap"])
            trimap[tile.kept(GRID_STRIDE)] = found[tile.inside(GRID_STRIDE)]
        return {"trimap": encode_png(trimap)}


class Means:
    """Means over tiles of numbers that are known of some of them.

    Args:
        names: of the numbers.
    """

    def __init__(self, *names: str) -> None:
        self.sums = dict.fromkeys(names, 0.0)
        self.weights = dict.fromkeys(names, 0.0)

    def add(self, found: Row, weight: float) -> None:
        """Adds those of a tile."""
        for name in self.sums:
            if found[name] is not None:
                self.sums[name] += weight * found[name]
                self.weights[name] += weight

    def columns(self) -> Row:
        """The means; None where no tile has the number."""
        return {name: total / self.weights[name] if self.weights[name] else None for name, total in self.sums.items()}


def grid_of(row: Row, stride: int) -> tuple[int, int]:
    """Cells (height, width) of the scene's grid of that stride."""
    return -(-row["height"] // stride), -(-row["width"] // stride)


def _scores(found: Row) -> NDArray[np.float32]:
    return decode_scores(found["scores"], height=found["grid_height"], width=found["grid_width"])
