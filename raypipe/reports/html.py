"""Renders the report as one HTML file that fetches nothing; its policy allows only its own script, by its hash.

Whatever comes from data (ids, labels, class names, reasons, config) is escaped by the template engine; only pictures
and charts drawn here are marked safe.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from raypipe.reports import tables
from raypipe.reports.cards import columns_of, saliency_cards, sample_cards
from raypipe.reports.content import Report, Sample
from raypipe.reports.page import class_colors, render_page

__all__ = ["Report", "Sample", "render_report"]

_FOLDER = Path(__file__).parent

_SCRIPTS = ("compare.js", "strips.js")

INSEPARABLE = 0.9
"""From this share of a class's images with another class on, labels can hardly tell the two apart."""

_MAX_PAIRS = 20


def render_report(report: Report) -> str:
    """Renders the report as a self-contained HTML page."""
    splits = list(dict.fromkeys(score.split for score in report.scores))
    results = [(split, [score for score in report.scores if score.split == split]) for split in splits]
    samples, num_left_out = sample_cards(report.samples)
    script = "".join((_FOLDER / name).read_text() for name in _SCRIPTS)
    shown = {
        "results": [(split, scores, tables.best_of(scores)) for split, scores in results],
        "samples": samples,
        "class_tables": [tables.class_table(number, *result) for number, result in enumerate(results)],
        "confusions": [tables.confusion(found, report.classes) for found in report.confusions],
        "risks": [tables.risk(number, found) for number, found in enumerate(report.risks)],
        "gates": tables.gates(report.decisions),
        "saliency": saliency_cards(report.saliency),
        "curves": [tables.curves(number, *item) for number, item in enumerate(report.curves.items()) if item[1]],
        "times": tables.time_rows(report.streams, report.curves),
    }
    return render_page(
        "report.html",
        report=report,
        title=report.title,
        sections=_sections(report, shown),
        script=Markup(script),  # noqa: S704 - a file of the package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        legend=class_colors(report.classes),
        inseparable=INSEPARABLE,
        max_pairs=_MAX_PAIRS,
        num_left_out=num_left_out,
        columns=columns_of(samples),
        **shown,
    )


def _sections(report: Report, shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns name of the template and heading of the sections that have something to show."""
    sections = [
        ("counts", "Masks", report.counts),
        ("results", "Results", shown["results"]),
        ("samples", "Samples", any(shown["samples"].values())),
        ("classes", "Classes", shown["class_tables"]),
        ("confusion", "Confusion", shown["confusions"]),
        ("pairs", "Context", report.label_pairs and report.label_pairs.pairs),
        ("risk", "Risk", shown["risks"]),
        ("gates", "Gates", shown["gates"] or report.walks or report.gate == "image"),
        ("sweeps", "Sweeps", report.sweeps),
        ("saliency", "Saliency", shown["saliency"]),
        ("training", "Training", shown["curves"] or report.known),
        ("times", "Time", shown["times"]),
        ("quarantine", "Quarantine", report.quarantine),
        ("provenance", "Provenance", report.provenance),
    ]
    return [(key, heading) for key, heading, content in sections if content]
