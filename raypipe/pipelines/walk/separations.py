"""How well the masks of many settings part the images: what a setting is chosen by without truth."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raypipe import storage
from raypipe.ops.separation import COLOUR_WEIGHT
from raypipe.stages.walk_scores import SEPARATIONS, Setting


@dataclass(frozen=True)
class Separations:
    """Separations of S settings on N images that have labels."""

    settings: tuple[Setting, ...]
    feature: NDArray[np.float64]
    """(N, S), of the AffinityNet's features."""
    colour: NDArray[np.float64]
    """(N, S), of the colours."""

    @classmethod
    def none(cls, settings: Sequence[Setting]) -> "Separations":
        """Of no image yet."""
        return cls(tuple(settings), *np.zeros((2, 0, len(settings))))

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.feature)

    def objective(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The objective of each setting, the images weighted by `weights` where there are any."""
        weights = np.ones(self.num_images) if weights is None else weights
        feature, colour = (np.maximum(weights @ parted / weights.sum(), 0) for parted in (self.feature, self.colour))
        objective: NDArray[np.float64] = feature * colour**COLOUR_WEIGHT
        return objective

    def and_images(self, found: Sequence[NDArray[np.float64]]) -> "Separations":
        """With further images, of which each array (2, N, S) holds the separations of features and of colours."""
        feature, colour = np.concatenate([np.stack([self.feature, self.colour]), *found], axis=1)
        return Separations(self.settings, feature, colour)

    def only(self, indices: Sequence[int]) -> "Separations":
        """Of some of the settings."""
        settings = tuple(self.settings[index] for index in indices)
        return Separations(settings, self.feature[:, indices], self.colour[:, indices])

    def write(self, uri: str) -> None:
        """Writes them as Parquet, a row a setting."""
        rows = [
            setting._asdict() | dict(zip(SEPARATIONS, (feature.tolist(), colour.tolist()), strict=True))
            for setting, feature, colour in zip(self.settings, self.feature.T, self.colour.T, strict=True)
        ]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        storage.write_bytes_atomic(uri, buffer.getvalue())


def read_separations(uris: Sequence[str]) -> Separations:
    """What `Separations.write` has written of the same images; a setting that is there twice counts once."""
    found = {}
    for uri in uris:
        for row in pq.read_table(io.BytesIO(storage.read_bytes(uri))).to_pylist():
            setting = Setting(*(row[name] for name in Setting._fields))
            found[setting] = [row[name] for name in SEPARATIONS]
    return Separations(tuple(found), *np.array(list(found.values()), np.float64).transpose(1, 2, 0))
