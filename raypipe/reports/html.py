"""The report: one HTML file with everything in it, nothing fetched, no scripts.

Whatever comes from data (ids, labels, class names, reasons, config) is escaped by the template engine; only pictures
and charts drawn here are marked safe.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from raypipe.reports.content import KINDS, Report, Sample
from raypipe.reports.page import class_colors, render_page
from raypipe.reports.pictures import data_uri, thumbnail
from raypipe.reports.plots import bar_chart, line_chart
from raypipe.reports.saliency import SaliencySample, draw_saliency
from raypipe.reports.strip import COLUMNS, draw_columns

__all__ = ["Report", "Sample", "render_report"]

STAGE_NAMES = {"cam": "CAM", "walk": "random walk", "dcrf": "dCRF", "pamr": "PAMR"}
_MAX_BARS = 40
"""Classes in a bar chart; of more, the weakest are shown."""


def render_report(report: Report) -> str:
    """The report as a self-contained HTML page."""
    splits = list(dict.fromkeys(score["split"] for score in report.scores))
    by_split = {split: [score for score in report.scores if score["split"] == split] for split in splits}
    return render_page(
        "report.html",
        title=report.title,
        legend=class_colors(report.classes),
        results=[_result(split, scores) for split, scores in by_split.items()],
        class_tables=[_class_table(number, split, scores) for number, (split, scores) in enumerate(by_split.items())],
        gate=report.gate,
        decisions=[_decision(decision) for decision in report.decisions],
        samples=_samples(report),
        columns=[name for name in COLUMNS if _has_column(report.samples, name)],
        saliency=[_saliency(sample, class_colors(report.classes)) for sample in report.saliency],
        curves=[_curves(number, *item) for number, item in enumerate(report.curves.items()) if item[1]],
        streams=[_stream(name, summary) for name, summary in report.streams.items()],
        quarantine=report.quarantine,
        provenance=[(key, *_as_text(value)) for key, value in report.provenance.items()],
    )


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _stage_name(stage: str) -> str:
    return STAGE_NAMES.get(stage, stage)


def _result(split: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of the results table of one split."""
    rows = []
    for before, score in zip((None, *scores[:-1]), scores, strict=True):
        gain = None if before is None else 100 * (score["mean_iou"] - before["mean_iou"])
        rows.append(
            {
                "stage": _stage_name(score["stage"]),
                "mean_iou": _percent(score["mean_iou"]),
                "gain": "" if gain is None or math.isnan(gain) else f"{gain:+.1f}".replace("-", "−"),
                "num_images": f"{score['num_images']:,}",
                "num_unscored": f"{score['num_unscored']:,}",
                "post_processing": score["post_processing"],
                "truth_digest": score["truth_digest"],
            }
        )
    return {"split": split, "rows": rows, "best": max(range(len(rows)), key=lambda i: _rank(scores[i]["mean_iou"]))}


def _rank(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _decision(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Row of the gates' table."""
    before, after, difference, error = (decision[name] for name in ("before", "after", "difference", "standard_error"))
    change = "–" if difference is None else f"{difference:+.3f}".replace("-", "−")
    return {
        "refinement": _stage_name(decision["refinement"]),
        "judge": decision["judge"],
        "before": "–" if before is None else f"{before:.3f}",
        "after": "–" if after is None else f"{after:.3f}",
        "difference": change if error is None else f"{change} ± {error:.3f}",
        "num_images": f"{decision['num_images']:,}",
        "verdict": "kept" if decision["kept"] else "rejected",
        "reason": decision["reason"] if before is None else "",
    }


def _class_table(number: int, split: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """IoU of every class after every stage, and its bar chart."""
    names = list(scores[0]["class_iou"])
    stages = [_stage_name(score["stage"]) for score in scores]
    shown = names
    if len(names) > _MAX_BARS:
        weakest = sorted(names, key=lambda name: _rank(scores[-1]["class_iou"][name]))[:_MAX_BARS]
        shown = [name for name in names if name in set(weakest)]
    values = {
        stage: [100 * score["class_iou"].get(name, math.nan) for name in shown]
        for stage, score in zip(stages, scores, strict=True)
    }
    chart = bar_chart(
        values,
        shown,
        chart_id=f"classes{number}",
        description=f"IoU of each class on {split}; the numbers are in the table",
    )
    return {
        "split": split,
        "stages": stages,
        "rows": [(name, [_percent(score["class_iou"].get(name)) for score in scores]) for name in names],
        "num_left_out": len(names) - len(shown),
        "chart": Markup(chart),  # noqa: S704 - matplotlib escaped the names
    }


def _has_column(samples: Sequence[Sample], name: str) -> bool:
    fields = {"affinity": "affinity", "refined": "mask", "segmenter": "segment", "truth": "truth"}
    return name not in fields or any(getattr(sample, fields[name]) is not None for sample in samples)


def _samples(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Cards of the samples, by kind."""
    legend = class_colors(report.classes)
    cards: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for sample in report.samples:
        pictures = draw_columns(sample)
        height, width = next(picture.shape[:2] for picture in pictures.values() if picture is not None)
        cards[sample.kind].append(
            {
                "image_id": sample.image_id,
                "labels": [(label, legend.get(label)) for label in sample.labels],
                "iou": None if sample.iou is None else _percent(sample.iou),
                "width": width,
                "height": height,
                "pictures": {
                    name: None if picture is None else data_uri(picture) for name, picture in pictures.items()
                },
            }
        )
    return cards


def _saliency(sample: SaliencySample, legend: Mapping[str, str]) -> dict[str, Any]:
    """Card of a training image and its saliency."""
    pictures = draw_saliency(sample)
    height, width = thumbnail(sample.pixels).shape[:2]
    region = sample.inconsistent_region
    return {
        "image_id": sample.image_id,
        "labels": [(label, legend.get(label)) for label in sample.labels],
        "dropped": None if region is None else _percent(float(region.mean())),
        "width": width,
        "height": height,
        "pictures": {name: None if picture is None else data_uri(picture) for name, picture in pictures.items()},
    }


def _curves(number: int, network: str, epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Charts of one network's training, and what its last epoch said."""
    terms = [name for name in epochs[0] if name.startswith("loss_")]
    losses = ["loss", *terms] if len(terms) > 1 else ["loss"]
    charts = [
        ("loss", {name.removeprefix("loss_"): [epoch[name] for epoch in epochs] for name in losses}, "loss"),
        ("speed", {"images": [epoch["images_per_second"] for epoch in epochs]}, "images per second"),
        ("rate", {"rate": [epoch["lr"] for epoch in epochs]}, "learning rate"),
    ]
    if "dropped_share" in epochs[0]:
        shares = [100 * epoch["dropped_share"] for epoch in epochs]
        charts.append(("dropped", {"dropped": shares}, "% of the pixels dropped"))
    last = epochs[-1]
    return {
        "network": network,
        "facts": [
            ("epochs", str(len(epochs))),
            ("last loss", f"{last['loss']:.4g}"),
            ("images per second", f"{last['images_per_second']:.1f}"),
            ("waiting for data", f"{100 * last['share_waiting']:.0f} %"),
            ("seconds", f"{sum(epoch['seconds'] for epoch in epochs):,.0f}"),
            ("unreadable images", f"{last['num_unreadable']:,}"),
        ],
        "charts": [
            Markup(  # noqa: S704 - matplotlib escaped the names
                line_chart(
                    series, unit=unit, chart_id=f"curve{number}{key}", description=f"{unit} of {network} by epoch"
                )
            )
            for key, series, unit in charts
        ],
    }


def _stream(name: str, summary: Mapping[str, Any]) -> tuple[str, ...]:
    seconds, computed = summary["seconds"], summary["num_computed"]
    counts = (summary[key] for key in ("num_rows", "num_finished", "num_quarantined", "num_computed"))
    speed = f"{computed / seconds:.1f}" if computed and seconds > 0 else "–"
    return (name, *(f"{number:,}" for number in counts), f"{seconds:,.1f}", speed)


def _as_text(value: object) -> tuple[str, bool]:
    """A provenance value as text, and whether it needs a block of its own."""
    if isinstance(value, Mapping):
        value = "\n".join(f"{key}: {inner}" for key, inner in value.items())
    text = str(value)
    return text, "\n" in text
