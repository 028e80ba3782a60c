"""Draws the report's pictures, one card for each image, within a limit that keeps the page small."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.reports.content import KINDS, SaliencySample, Sample
from raypipe.reports.pictures import data_uri, draw_affinity, draw_cam, draw_mask, draw_plane, thumbnail
from raypipe.schema import IGNORE

MAX_BYTES = 3_500_000
"""Most bytes of all samples' pictures together."""

MAX_SALIENCY_BYTES = 700_000

COLUMNS = ("photograph", "CAM", "affinity", "random walk", "refined", "segmenter", "truth")

Pictures = Mapping[str, NDArray[np.uint8] | None]
"""Drawings of one image by name, all of one size; None stands for a missing one."""


def make_card(image_id: str, labels: Sequence[str], drawn: Pictures, **values: Any) -> dict[str, Any]:
    """Returns what a page shows of one image: its name, labels and pictures, and what else the template asks for."""
    height, width = next(picture.shape[:2] for picture in drawn.values() if picture is not None)
    return {
        "image_id": image_id,
        "labels": labels,
        "width": width,
        "height": height,
        "pictures": {name: None if picture is None else data_uri(picture) for name, picture in drawn.items()},
        **values,
    }


def _num_bytes(card: Mapping[str, Any]) -> int:
    return sum(len(picture) for picture in card["pictures"].values() if picture)


def draw_columns(sample: Sample) -> Pictures:
    """Draws a sample's pictures by the names in COLUMNS."""
    photo = thumbnail(sample.pixels)
    masks = {
        "random walk": sample.walk_mask,
        "refined": sample.mask,
        "segmenter": sample.segment,
        "truth": sample.truth,
    }
    return {
        "photograph": photo,
        "CAM": None if sample.cam is None else draw_cam(photo, sample.cam, sample.class_ids),
        "affinity": None if sample.affinity is None else draw_affinity(photo, sample.affinity, sample.pixels.shape),
        **{name: None if mask is None else draw_mask(photo, mask) for name, mask in masks.items()},
    }


def draw_saliency(sample: SaliencySample) -> Pictures:
    """Draws the maps of a training image, with dropped pixels in white."""
    photo = thumbnail(sample.pixels)
    refined, region = sample.refined, sample.inconsistent_region
    return {
        "photograph": photo,
        "saliency": draw_plane(photo, sample.saliency),
        "foreground": draw_plane(photo, sample.foreground),
        "refined foreground": None if refined is None else draw_plane(photo, refined),
        "dropped": None if region is None else draw_mask(photo, np.where(region, np.uint8(IGNORE), np.uint8(0))),
    }


def sample_cards(
    samples: Iterable[Sample], *, max_bytes: int = MAX_BYTES
) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Returns cards by kind, and the number of samples that were left out to keep the page small.

    Args:
        samples: samples in the order in which they get room on the page.
        max_bytes: most bytes of all pictures together.
    """
    cards: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    num_left_out = num_bytes = 0
    for sample in samples:
        if num_bytes >= max_bytes:
            num_left_out += 1
            continue
        card = make_card(sample.image_id, sample.labels, draw_columns(sample), iou=sample.iou)
        num_bytes += _num_bytes(card)
        cards[sample.kind].append(card)
    return cards, num_left_out


def columns_of(cards: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Returns the names of the pictures that any card has."""
    return [name for name in COLUMNS if any(card["pictures"][name] for of_kind in cards.values() for card in of_kind)]


def saliency_cards(samples: Iterable[SaliencySample]) -> list[dict[str, Any]]:
    """Returns cards of training images with their saliency, as many as there is room for."""
    cards: list[dict[str, Any]] = []
    for sample in samples:
        if sum(map(_num_bytes, cards)) >= MAX_SALIENCY_BYTES:
            break
        region = sample.inconsistent_region
        dropped = None if region is None else float(region.mean())
        cards.append(make_card(sample.image_id, sample.labels, draw_saliency(sample), dropped=dropped))
    return cards
