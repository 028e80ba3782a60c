"""Prepares the report's charts, and chooses what its tables show: results, classes, training, time, confusions, risk.

The templates write the numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.ops.metrics import iou
from raypipe.reports.confusions import MAX_CLASSES, biggest_confusions, heat_map, shown_classes
from raypipe.reports.content import Confusion, RiskCurves
from raypipe.reports.page import stage_name
from raypipe.reports.plots import bar_chart, line_chart, risk_chart
from raypipe.results import Decision, Score

_MAX_BARS = 40
"""Most classes in a bar chart; of more, the weakest are shown."""


def _rank(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def best_of(scores: Sequence[Score]) -> Score:
    """Returns the score with the highest mean IoU."""
    return max(scores, key=lambda score: _rank(score.mean_iou))


def class_table(number: int, split: str, scores: Sequence[Score]) -> dict[str, Any]:
    """Returns the scores of a split with the bar chart of their classes."""
    names = list(scores[0].class_iou)
    weakest = set(sorted(names, key=lambda name: _rank(scores[-1].class_iou[name]))[:_MAX_BARS])
    shown = [name for name in names if name in weakest]
    chart = bar_chart(
        {stage_name(score.stage): [100 * score.class_iou[name] for name in shown] for score in scores},
        shown,
        chart_id=f"classes{number}",
        description=f"IoU of each class on {split}; the numbers are in the table",
    )
    return {"split": split, "scores": scores, "num_left_out": len(names) - len(shown), "chart": chart}


def curves(number: int, network: str, epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the metrics of one network's training with their charts."""
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
    drawn = [
        line_chart(series, unit=unit, chart_id=f"curve{number}{key}", description=f"{unit} of {network} by epoch")
        for key, series, unit in charts
    ]
    return {"network": network, "epochs": epochs, "charts": drawn}


def time_rows(
    streams: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Returns what each stage has done and what it took, as the summaries of streams do; trainings have fewer facts."""
    trainings = [
        {
            "stage": f"training, {network}",
            "num_computed": sum(epoch["num_images"] for epoch in epochs),
            "seconds": sum(epoch["seconds"] for epoch in epochs),
        }
        for network, epochs in curves.items()
        if epochs
    ]
    return [*trainings, *({"stage": name, **summary} for name, summary in streams.items())]


def confusion(found: Confusion, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the heat map and the biggest confusions of one split."""
    names = ("background", *classes)
    where = f"{stage_name(found.stage)} on {found.split}"
    description = f"Confusion of classes, {where}; the biggest confusions are in the table"
    num_seen = sum(not math.isnan(value) for value in iou(found.matrix))
    return {
        "where": where,
        "chart": heat_map(found.matrix, names, description=description),
        "num_left_out": num_seen - len(shown_classes(found.matrix)),
        "max_classes": MAX_CLASSES,
        "rows": biggest_confusions(found.matrix, names),
    }


MEANINGS = {
    "objective": "how well the masks part features and colours",
    "class consistency": "how much of a class the classifier finds inside its mask, and misses outside",
}
"""What the scores of gates are, in words."""


def gates(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Returns the gates' decisions with what they say in words, and as many digits as tell the difference."""
    return [
        {
            "decision": decision,
            "meaning": MEANINGS.get(decision.judge),
            "digits": _digits(decision.standard_error or decision.difference),
            "verdict": _verdict(decision),
        }
        for decision in decisions
    ]


def _digits(value: float | None) -> int:
    """Digits behind the point that show two digits of a value: at least 3, at most 6."""
    return min(6, max(3, 1 - math.floor(math.log10(abs(value))))) if value else 3


def _verdict(decision: Decision) -> str:
    if decision.difference is None or decision.kept != (decision.difference > 0):
        return decision.reason
    if not decision.kept:
        return "not better with it"
    error = decision.standard_error
    if not error:
        return "better with it"
    times = decision.difference / error
    if decision.may_be_chance:
        return f"better with it, but by {times:.1f} standard errors only, which chance alone may do"
    return f"better with it, by {times:.1f} standard errors"


def risk(number: int, found: RiskCurves) -> dict[str, Any]:
    """Returns the chart of risk over coverage, with its values at every tenth of coverage."""
    name = f"{found.title}: risk over coverage; some values are in the table"
    points = zip(found.coverages, zip(*found.risks.values(), strict=True), strict=True)
    return {
        "found": found,
        "chart": risk_chart(found.coverages, found.risks, chart_id=f"risk{number}", description=name),
        "rows": [(coverage, risks) for coverage, risks in points if round(100 * coverage, 6) % 10 == 0],
    }
