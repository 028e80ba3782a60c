"""Draws the report's pictures, one card for each image, within a limit that keeps the page small."""

from collections.abc import Iterable, Mapping
from typing import Any

from raypipe.reports.content import KINDS, Sample
from raypipe.reports.pictures import data_uri, thumbnail
from raypipe.reports.saliency_samples import SaliencySample, draw_saliency
from raypipe.reports.strip import COLUMNS, draw_columns
from raypipe.reports.tables import percent

MAX_BYTES = 3_500_000
"""Most bytes of all samples' pictures together."""

MAX_SALIENCY_BYTES = 700_000


def sample_cards(
    samples: Iterable[Sample], legend: Mapping[str, str], *, max_bytes: int = MAX_BYTES
) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Returns cards by kind, and the number of samples that were left out to keep the page small.

    Args:
        samples: samples in the order in which they get room on the page.
        legend: colour by class name.
        max_bytes: most bytes of all pictures together.
    """
    cards: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    num_left_out = num_bytes = 0
    for sample in samples:
        if num_bytes >= max_bytes:
            num_left_out += 1
            continue
        drawn = draw_columns(sample)
        height, width = next(picture.shape[:2] for picture in drawn.values() if picture is not None)
        pictures = {name: None if picture is None else data_uri(picture) for name, picture in drawn.items()}
        num_bytes += sum(len(picture) for picture in pictures.values() if picture)
        cards[sample.kind].append(
            {
                "image_id": sample.image_id,
                "labels": [(label, legend.get(label)) for label in sample.labels],
                "iou": None if sample.iou is None else percent(sample.iou),
                "width": width,
                "height": height,
                "pictures": pictures,
            }
        )
    return cards, num_left_out


def columns_of(cards: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Returns the names of the pictures that any card has."""
    return [name for name in COLUMNS if any(card["pictures"][name] for of_kind in cards.values() for card in of_kind)]


def saliency_cards(
    samples: Iterable[SaliencySample], legend: Mapping[str, str], *, max_bytes: int = MAX_SALIENCY_BYTES
) -> list[dict[str, Any]]:
    """Returns cards of training images with their saliency, as many as there is room for."""
    cards: list[dict[str, Any]] = []
    num_bytes = 0
    for sample in samples:
        if num_bytes >= max_bytes:
            break
        height, width = thumbnail(sample.pixels).shape[:2]
        region = sample.inconsistent_region
        pictures = {
            name: None if picture is None else data_uri(picture) for name, picture in draw_saliency(sample).items()
        }
        num_bytes += sum(len(picture) for picture in pictures.values() if picture)
        cards.append(
            {
                "image_id": sample.image_id,
                "labels": [(label, legend.get(label)) for label in sample.labels],
                "dropped": None if region is None else percent(float(region.mean())),
                "width": width,
                "height": height,
                "pictures": pictures,
            }
        )
    return cards
