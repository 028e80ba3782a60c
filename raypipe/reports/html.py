"""Renders the report as one HTML file that fetches nothing; its policy allows only its own script, by its hash.

Whatever comes from data (ids, labels, class names, reasons, config) is escaped by the template engine; only pictures
and charts drawn here are marked safe.
"""

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from raypipe.reports import tables
from raypipe.reports.cards import columns_of, saliency_cards, sample_cards
from raypipe.reports.content import Report, Sample, SweepPlots
from raypipe.reports.page import class_colors, render_page

__all__ = ["Report", "Sample", "render_report"]

_FOLDER = Path(__file__).parent


def render_report(report: Report) -> str:
    """Renders the report as a self-contained HTML page."""
    splits = list(dict.fromkeys(score["split"] for score in report.scores))
    by_split = {split: [score for score in report.scores if score["split"] == split] for split in splits}
    legend = class_colors(report.classes)
    samples, num_left_out = sample_cards(report.samples, legend)
    script = (_FOLDER / "compare.js").read_text()
    pairs = report.label_pairs
    return render_page(
        "report.html",
        title=report.title,
        script=Markup(script),  # noqa: S704 - a file of the package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        legend=legend,
        results=[tables.result(split, scores) for split, scores in by_split.items()],
        class_tables=[tables.class_table(number, *item) for number, item in enumerate(by_split.items())],
        gate=report.gate,
        decisions=[tables.decision(decision) for decision in report.decisions],
        confusions=[tables.confusion(found, report.classes) for found in report.confusions],
        pairs=None if pairs is None else tables.label_pairs(pairs, report.classes),
        inseparable=f"{100 * tables.INSEPARABLE:.0f}",
        risks=[tables.risk(number, found) for number, found in enumerate(report.risks)],
        sweeps=[(sweep.name, sweep.facts, _plots(sweep)) for sweep in report.sweeps],
        samples=samples,
        num_left_out=num_left_out,
        columns=columns_of(samples),
        saliency=saliency_cards(report.saliency, legend),
        curves=[tables.curves(number, *item) for number, item in enumerate(report.curves.items()) if item[1]],
        times=tables.time_rows(report.streams, report.curves),
        num_quarantined=f"{sum(group.num_images for group in report.quarantine):,}",
        quarantine=report.quarantine,
        provenance=[(key, *tables.as_text(value)) for key, value in report.provenance.items()],
    )


def _plots(sweep: SweepPlots) -> dict[str, str]:
    """Returns each SVG as a data URI; as a picture it can neither run scripts nor style the page."""
    return {name: "data:image/svg+xml;base64," + base64.b64encode(svg).decode() for name, svg in sweep.plots.items()}
