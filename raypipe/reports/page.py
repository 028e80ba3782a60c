"""Renders templates and colours classes, for all pages.

Whatever comes from data (ids, labels, class names, reasons, config) is escaped by the engine.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from raypipe.reports.pictures import as_uri, palette

_STAGE_NAMES = {"cam": "CAM", "walk": "random walk", "dcrf": "dCRF", "pamr": "PAMR"}


def stage_name(stage: str) -> str:
    """Returns the readable name of a stage."""
    return _STAGE_NAMES.get(stage, stage)


def decimal(value: float | None, digits: int = 0, *, signed: bool = False) -> str:
    """Writes a number with some digits behind the point, or a dash where it is unknown."""
    if value is None or math.isnan(value):
        return "–"
    return format(value, f"{'+' if signed else ''},.{digits}f").replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """Writes a share in percent, or a dash where it is unknown."""
    return decimal(None if share is None else 100 * share, digits)


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(stage_name=stage_name, decimal=decimal, percent=percent, data_uri=as_uri)


def render_page(template: str, **values: Any) -> str:
    """Fills in a template of this folder."""
    return _ENVIRONMENT.get_template(template).render(values)


def class_colors(classes: Sequence[str]) -> dict[str, str]:
    """Returns colours by class name; the background has none, since it shows the photograph."""
    colors = palette(len(classes))[1:].tolist()
    return {name: "#" + bytes(color).hex() for name, color in zip(classes, colors, strict=True)}
