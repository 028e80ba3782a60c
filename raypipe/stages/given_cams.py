"""Class activation maps that another program made, in the place of computed ones."""

import io
import zipfile
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.arrays import encode_cam
from raypipe.data.names import file_stem
from raypipe.ops.cam import Pass, merge_cams, normalize_cams
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row, Stage
from raypipe.stages.cams import ComputeCams


@dataclass(kw_only=True)
class LoadGivenCams(Stage):
    """Maps of a folder that `raypipe import cams` wrote, on the same grid and normalised as those of `ComputeCams`."""

    maps: Artifact
    """The folder: the maps (K, H, W) of an image, H x W its original size, are in `<image_id>.npz`."""
    out_stride: Literal[1, 4]
    """Pixels of the image a cell of the result."""

    reads = ("image_id", "class_ids", "height", "width", "original_height", "original_width")
    writes = ComputeCams.writes
    kind = None  # joins the stage that needs the maps

    def process(self, row: Row) -> Row:
        """Reads the maps of the labelled classes.

        Raises:
            ValueError: if the file is damaged, lacks a labelled class, or is that of an image of another size.
            FileNotFoundError: if there is none, although the image has labels.
        """
        size = (row["height"], row["width"])
        if not row["class_ids"]:
            merged = torch.zeros(0, *(-(-side // self.out_stride) for side in size))
        else:
            maps = self._read(row)
            height, width = maps.shape[1:]
            padded = F.pad(maps, (0, -width % GRID_STRIDE, 0, -height % GRID_STRIDE), mode="replicate")
            passes = [Pass(padded, (height, width))]
            merged = merge_cams(passes, image_size=size, stride=1, out_stride=self.out_stride)
        cam = normalize_cams(merged.clamp(min=0)).numpy()
        return {"cam": encode_cam(cam), "cam_height": cam.shape[1], "cam_width": cam.shape[2]}

    def _read(self, row: Row) -> Tensor:
        """Maps (K, original_height, original_width) of the row's K labels."""
        uri = storage.join(self.maps.uri, f"{file_stem(row['image_id'])}.npz")
        try:
            with np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False) as file:
                found, maps = file["class_ids"].tolist(), file["cam"]
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise ValueError(f"{uri} holds no maps ({error}): import it again") from error
        if missing := [class_id for class_id in row["class_ids"] if class_id not in found]:
            raise ValueError(f"{uri} has maps of the class ids {found}, but the image is labelled {missing}, too")
        if maps.shape[1:] != (size := (row["original_height"], row["original_width"])):
            raise ValueError(f"the maps of {uri} are {maps.shape[1:]} (height, width), the image {size}")
        return torch.from_numpy(maps[[found.index(class_id) for class_id in row["class_ids"]]])
