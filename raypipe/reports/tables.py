"""Prepares the report's tables and charts: results, gates, classes, training, time, confusions, risk."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from raypipe.ops.metrics import iou
from raypipe.reports.confusions import MAX_CLASSES, biggest_confusions, heat_map, shown_classes
from raypipe.reports.content import Confusion, LabelPairs, RiskCurves
from raypipe.reports.plots import bar_chart, line_chart, risk_chart

STAGE_NAMES = {"cam": "CAM", "walk": "random walk", "dcrf": "dCRF", "pamr": "PAMR"}
_MAX_BARS = 40
"""Most classes in a bar chart; of more, the weakest are shown."""

_MAX_PAIRS = 20
INSEPARABLE = 0.9
"""From this share of a class's images with another class on, labels can hardly tell the two apart."""


def percent(value: float | None) -> str:
    """Writes a share in percent, or a dash for None."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def stage_name(stage: str) -> str:
    """Returns the readable name of a stage."""
    return STAGE_NAMES.get(stage, stage)


def result(split: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the rows of the results table of one split."""
    rows = []
    for before, score in zip((None, *scores[:-1]), scores, strict=True):
        gain = None if before is None else 100 * (score["mean_iou"] - before["mean_iou"])
        rows.append(
            {
                "stage": stage_name(score["stage"]),
                "mean_iou": percent(score["mean_iou"]),
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


def decision(decision: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of the gates' table."""
    before, after, difference, error = (decision[name] for name in ("before", "after", "difference", "standard_error"))
    change = "–" if difference is None else f"{difference:+.3f}".replace("-", "−")
    return {
        "refinement": stage_name(decision["refinement"]),
        "judge": decision["judge"],
        "before": "–" if before is None else f"{before:.3f}",
        "after": "–" if after is None else f"{after:.3f}",
        "difference": change if error is None else f"{change} ± {error:.3f}",
        "num_images": f"{decision['num_images']:,}",
        "verdict": "kept" if decision["kept"] else "rejected",
        "reason": decision["reason"] if before is None else "",
    }


def class_table(number: int, split: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the IoU of every class after every stage, with its bar chart."""
    names = list(scores[0]["class_iou"])
    stages = [stage_name(score["stage"]) for score in scores]
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
        "rows": [(name, [percent(score["class_iou"].get(name)) for score in scores]) for name in names],
        "num_left_out": len(names) - len(shown),
        "chart": Markup(chart),  # noqa: S704 - matplotlib escaped the names
    }


def curves(number: int, network: str, epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the charts of one network's training, with the metrics of its last epoch."""
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


def time_rows(
    streams: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[tuple[str, ...]]:
    """What each stage has done and what it took: rows, finished, quarantined, computed, seconds, images per second.

    The last row is the sum.
    """
    lines: list[tuple[str, list[int] | None, int, float]] = []
    for network, epochs in curves.items():
        if epochs:
            images = sum(int(epoch["num_images"]) for epoch in epochs)
            lines.append((f"training, {network}", None, images, sum(float(epoch["seconds"]) for epoch in epochs)))
    for name, summary in streams.items():
        counts = [summary[key] for key in ("num_rows", "num_finished", "num_quarantined")]
        lines.append((name, counts, summary["num_computed"], summary["seconds"]))
    rows = []
    for name, known, images, seconds in lines:
        speed = f"{images / seconds:.1f}" if images and seconds > 0 else "–"
        texts = ["–"] * 3 if known is None else [f"{count:,}" for count in known]
        rows.append((name, *texts, f"{images:,}", f"{seconds:,.1f}", speed))
    if len(rows) > 1:
        total = sum(seconds for *_, seconds in lines)
        rows.append(("together", *[""] * 4, f"{total:,.1f}", ""))
    return rows


def confusion(found: Confusion, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the heat map and the biggest confusions of one split."""
    names = ("background", *classes)
    where = f"{stage_name(found.stage)} on {found.split}"
    chart = heat_map(
        found.matrix, names, description=f"Confusion of classes, {where}; the biggest confusions are in the table"
    )
    num_seen = sum(not math.isnan(value) for value in iou(found.matrix))
    return {
        "where": where,
        "chart": Markup(chart),  # noqa: S704 - names are escaped there
        "num_left_out": num_seen - len(shown_classes(found.matrix)),
        "max_classes": MAX_CLASSES,
        "rows": [
            (row["truth"], row["mask"], f"{row['pixels']:,}", percent(row["of_truth"]), percent(row["of_mask"]))
            for row in biggest_confusions(found.matrix, names)
        ],
    }


def label_pairs(found: LabelPairs, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the table of the classes that appear together."""
    return {
        "num_images": f"{found.num_images:,}",
        "num_left_out": max(0, len(found.pairs) - _MAX_PAIRS),
        "rows": [
            {
                "first": classes[pair.first],
                "second": classes[pair.second],
                "num_both": f"{pair.num_both:,}",
                "num_first": f"{pair.num_first:,}",
                "num_second": f"{pair.num_second:,}",
                "share": f"{100 * pair.share:.0f}",
                "lift": f"{pair.lift:.1f}",
                "inseparable": pair.share >= INSEPARABLE,
            }
            for pair in found.pairs[:_MAX_PAIRS]
        ],
    }


def risk(number: int, found: RiskCurves) -> dict[str, Any]:
    """Returns the chart of risk over coverage, with a few of its values."""
    shown = [index for index, coverage in enumerate(found.coverages) if round(100 * coverage, 6) % 10 == 0]
    name = f"{found.title}: risk over coverage; some values are in the table"
    chart = risk_chart(found.coverages, found.risks, chart_id=f"risk{number}", description=name)
    return {
        "title": found.title,
        "note": found.note,
        "chart": Markup(chart),  # noqa: S704 - matplotlib escaped the names
        "names": list(found.risks),
        "rows": [
            (f"{100 * found.coverages[index]:.0f}", [percent(values[index]) for values in found.risks.values()])
            for index in shown
        ],
    }


def as_text(value: object) -> tuple[str, bool]:
    """Returns a provenance value as text, and whether it needs a block of its own."""
    if isinstance(value, Mapping):
        value = "\n".join(f"{key}: {inner}" for key, inner in value.items())
    text = str(value)
    return text, "\n" in text
