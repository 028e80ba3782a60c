"""Draws on training images what the classifier learned from saliency, and where it learned nothing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.reports.pictures import draw_mask, draw_plane, thumbnail
from raypipe.schema import IGNORE


@dataclass(frozen=True, kw_only=True)
class SaliencySample:
    """A training image and the maps of its saliency loss. Maps may differ in size from the pixels."""

    image_id: str
    labels: tuple[str, ...]
    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    saliency: NDArray[np.float32]
    """M_s (h, w), 0..1."""
    foreground: NDArray[np.float32]
    """M_fg (h, w), 0..1."""
    refined: NDArray[np.float32] | None
    """M_r (h, w), 0..1; None if nothing was refined."""
    inconsistent_region: NDArray[np.bool_] | None
    """N (h, w), True for dropped pixels; None if the loss drops none."""


def draw_saliency(sample: SaliencySample) -> dict[str, NDArray[np.uint8] | None]:
    """Draws a sample's pictures by name, of one size, with dropped pixels in white; None stands for a missing map."""
    photo = thumbnail(sample.pixels)
    refined, region = sample.refined, sample.inconsistent_region
    return {
        "photograph": photo,
        "saliency": draw_plane(photo, sample.saliency),
        "foreground": draw_plane(photo, sample.foreground),
        "refined foreground": None if refined is None else draw_plane(photo, refined),
        "dropped": None if region is None else draw_mask(photo, np.where(region, np.uint8(IGNORE), np.uint8(0))),
    }
