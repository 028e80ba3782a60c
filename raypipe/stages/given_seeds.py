"""Maps that another program made, in the place of computed ones: of a file, or of a stage from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from raypipe.data.arrays import encode_cam
from raypipe.data.given_seeds import decode_seed
from raypipe.ops.unknown import fit_to_grid
from raypipe.schema import GIVEN_SEEDS
from raypipe.stages.base import Kind, Row, Stage
from raypipe.stages.cams import ComputeCams


@dataclass(kw_only=True)
class FitSeeds(Stage):
    """Given maps of the labelled classes, on the same grid as those of `ComputeCams`; NaN where unknown.

    Their values stay: they aren't divided by their maximum, which would make a certainty of a class that its maker
    hardly believes to be there. A labelled class without a map is unknown everywhere.
    """

    classes: tuple[str, ...]
    """Class names in class-id order."""
    out_stride: Literal[1, 4]
    """Pixels of the image a cell of the result."""

    reads = ("class_ids", "height", "width", *GIVEN_SEEDS.names)
    writes = ComputeCams.writes
    kind = None  # joins the stage that needs the maps

    def process(self, row: Row) -> Row:
        """Fits one image's maps to its grid.

        Raises:
            ValueError: if the image has labels, and nothing is known of any of them.
        """
        size, names = (row["height"], row["width"]), [self.classes[class_id - 1] for class_id in row["class_ids"]]
        cam = torch.full((len(names), *(-(-side // self.out_stride) for side in size)), torch.nan)
        if names:
            if row["seed"] is None:
                raise ValueError(
                    "there are no seeds of the image: have its maps made, then `raypipe import seeds` again, or leave "
                    "it out of splits.train and splits.masks"
                )
            given, maps = row["seed_classes"], torch.from_numpy(decode_seed(row))
            found = [(index, given.index(name)) for index, name in enumerate(names) if name in given]
            if not any((~maps[at].isnan()).any() for _, at in found):
                raise ValueError(f"the seeds have maps of {given or 'no class'} and say nothing of the labels {names}")
            fitted = fit_to_grid(maps[[at for _, at in found]], size=size, stride=self.out_stride)
            cam[[index for index, _ in found]] = fitted
        return {"cam": encode_cam(cam.numpy()), "cam_height": cam.shape[1], "cam_width": cam.shape[2]}


@dataclass(kw_only=True)
class ProvideSeeds(Stage):
    """Maps of a stage that isn't part of raypipe, as `FitSeeds` leaves them."""

    provider: Stage
    """Writes `schema.GIVEN_SEEDS`."""
    name: str
    version: str
    """Of the code: another one makes other maps."""
    fit: FitSeeds

    writes = ComputeCams.writes

    @property
    def reads(self) -> tuple[str, ...]:
        """What the provider reads, and what the grid follows from."""
        more = [name for name in self.fit.reads if name not in GIVEN_SEEDS.names and name not in self.provider.reads]
        return (*self.provider.reads, *more)

    @property
    def kind(self) -> Kind | None:
        """The provider's."""
        return self.provider.kind

    def setup(self, device: str) -> None:
        """Loads what the provider needs."""
        self.provider.setup(device)

    def process(self, row: Row) -> Row:
        """Makes and fits one image's maps."""
        return self.fit.process(row | self.provider.process(row))

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Makes all maps, as many at once as the provider likes, then fits them."""
        made = self.fit.process_all(self.provider.process_all(rows))
        return [{name: value for name, value in row.items() if name not in GIVEN_SEEDS.names} for row in made]
