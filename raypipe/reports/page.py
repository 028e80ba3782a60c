"""Renders templates and colours classes, for all pages.

Whatever comes from data (ids, labels, class names, reasons, config) is escaped by the engine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from raypipe.reports.pictures import palette

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(template: str, **values: Any) -> str:
    """Fills in a template of this folder."""
    return _ENVIRONMENT.get_template(template).render(values)


def class_colors(classes: Sequence[str]) -> dict[str, str]:
    """Returns colours by class name; the background has none, since it shows the photograph."""
    colors = palette(len(classes))[1:].tolist()
    return {name: "#" + bytes(color).hex() for name, color in zip(classes, colors, strict=True)}
