"""Draws charts as inline SVG, whose colours follow the page's light or dark scheme.

matplotlib has no CSS variables, so charts are drawn in placeholder colours, which are replaced in the SVG text.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK, _GRID = "#010101", "#010102"
_SERIES = ("#010111", "#010112", "#010113", "#010114", "#010115")
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(_SERIES, start=1)
}
_STYLE: dict[Any, object] = {
    "svg.fonttype": "none",  # text stays text, so that screen readers can read it, in the page's font
    "text.parse_math": False,  # a class may be called "$x$"
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}
_PAGE: dict[Any, object] = {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


@mpl.rc_context({**_STYLE, **_PAGE, "axes.grid.axis": "x"})
def bar_chart(
    values: Mapping[str, Sequence[float]], names: Sequence[str], *, chart_id: str, description: str
) -> Markup:
    """Draws horizontal bars: one group for each name, with one bar for each series.

    Args:
        values: values (percent) of each series, one for each name; nan draws no bar.
        names: names of the groups, top to bottom.
        chart_id: unique in the page.
        description: text for screen readers.
    """
    figure, axes = _new_figure(4.2, 0.75 + 0.27 * len(names))
    thickness = 0.8 / max(1, len(values))
    for number, (series, lengths) in enumerate(values.items()):
        places = np.arange(len(names)) - 0.4 + (number + 0.5) * thickness
        color = _SERIES[number % len(_SERIES)]
        axes.barh(places, np.nan_to_num(lengths), 0.86 * thickness, color=color, label=series)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), xlabel="IoU, %")
    figure.legend(loc="outside upper center", ncols=len(values), handlelength=1.4, handleheight=1)
    return _to_svg(figure, chart_id=chart_id, description=description)


@mpl.rc_context({**_STYLE, **_PAGE})
def line_chart(values: Mapping[str, Sequence[float]], *, unit: str, chart_id: str, description: str) -> Markup:
    """Draws lines over the epochs 1, 2, …; the first line is drawn stronger.

    Args:
        values: values of each series, one for each epoch.
        unit: unit of the vertical axis.
        chart_id: unique in the page.
        description: text for screen readers.
    """
    figure, axes = _new_figure(3.9, 2.5)
    for number, (series, heights) in enumerate(values.items()):
        style: dict[str, Any] = {"color": _line_color(number), "linewidth": 1.2 if number else 2.0}
        axes.plot(range(1, len(heights) + 1), heights, label=series, marker="o", markersize=3, **style)
    axes.set(xlabel="epoch", ylabel=unit)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(values) > 1:
        axes.legend()
    return _to_svg(figure, chart_id=chart_id, description=description)


@mpl.rc_context({**_STYLE, **_PAGE})
def risk_chart(
    coverages: Sequence[float], risks: Mapping[str, Sequence[float]], *, chart_id: str, description: str
) -> Markup:
    """Draws risk over coverage, both in percent; the first curve is drawn stronger, the others for comparison.

    Args:
        coverages: shares, 0..1.
        risks: risk of each curve at each coverage.
        chart_id: unique in the page.
        description: text for screen readers.
    """
    figure, axes = _new_figure(4.2, 2.9)
    for number, (name, values) in enumerate(risks.items()):
        style: dict[str, Any] = {"linewidth": 1.3, "linestyle": (0, (4, 2))} if number else {"linewidth": 2.2}
        axes.plot(100 * np.array(coverages), 100 * np.array(values), color=_line_color(number), label=name, **style)
    axes.set(xlabel="coverage: kept, surest first, %", ylabel="risk: 100 − IoU, %", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    if len(risks) > 1:
        figure.legend(loc="outside upper center", ncols=len(risks), handlelength=1.6)
    return _to_svg(figure, chart_id=chart_id, description=description)


def _line_color(number: int) -> str:
    """Returns the colour of a line; the first series' colour is too pale for one."""
    return _SERIES[(number + 1) % len(_SERIES)]


def setting_charts(table: pd.DataFrame, *, chosen: Mapping[str, float]) -> dict[str, str]:
    """Draws AffinityNet's Fig. 8 of a sweep: over beta and the number of steps, and over alpha, the rest as chosen.

    Where few settings share a chosen value, such as one that the config alone has, the lines are those of the nearest
    value that many share, and the title says so; the chosen setting is marked all the same.

    Args:
        table: one row for each setting, with `alpha, beta, num_steps, radius`, `objective` and `one_walk_mean_iou`
            (nan without truth).
        chosen: the setting that is marked.

    Returns:
        File name to a stand-alone SVG.
    """
    table = table[table["radius"] == chosen["radius"]]
    return {
        "beta_and_steps": _setting_chart(table, x="num_steps", fixed=("alpha",), chosen=chosen),
        "alpha": _setting_chart(table, x="alpha", fixed=("beta", "num_steps"), chosen=chosen),
    }


def _nearest_shared(values: pd.Series, chosen: float) -> float:
    """The value next to the chosen one, on a logarithmic scale, that at least half as many have as the commonest."""
    counts = values.value_counts()
    shared = counts.index[2 * counts >= counts.max()].to_numpy(float)
    return float(shared[np.abs(np.log1p(shared) - np.log1p(chosen)).argmin()])


_NAMES = {"num_steps": "steps t", "alpha": "alpha", "beta": "beta"}


def _fixed_at(drawn: Mapping[str, float], chosen: Mapping[str, float]) -> str:
    """What all settings of the lines share, in words."""
    others = {name: chosen[name] for name, value in drawn.items() if value != chosen[name]}
    at = ", ".join(f"{_NAMES[name]} {value:g}" for name, value in drawn.items())
    if not others:
        return f"at {at}"
    few = ", ".join(f"{_NAMES[name]} {value:g}" for name, value in others.items())
    return f"at {at}, the nearest to the chosen {few},\nof which too few settings were tried"


def _setting_chart(table: pd.DataFrame, *, x: str, fixed: Sequence[str], chosen: Mapping[str, float]) -> str:
    drawn = {name: _nearest_shared(table[name], chosen[name]) for name in fixed}
    mark = table[np.logical_and.reduce([table[name] == value for name, value in chosen.items()])]
    table = table[np.logical_and.reduce([table[name] == value for name, value in drawn.items()])]
    series = "beta"
    panels = {"objective (no truth)": ("objective", 1)}
    if table["one_walk_mean_iou"].notna().any():
        panels["mIoU of one walk, %"] = ("one_walk_mean_iou", 100)
    colors = mpl.colormaps["viridis"]
    with mpl.rc_context(_STYLE | {name: "#444444" for name, value in _STYLE.items() if value in (_INK, _GRID)}):
        figure = Figure(figsize=(0.8 + 3.9 * len(panels), 3.2), layout="constrained")
        figure.suptitle(_fixed_at(drawn, chosen), fontsize=9)
        for axes, (label, (column, factor)) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            groups = sorted(table[series].unique())
            for number, value in enumerate(groups):
                line = table[table[series] == value].sort_values(x)
                if len(line) > 1 or len(groups) == 1:
                    color = colors(0.9 * number / max(1, len(groups) - 1))
                    axes.plot(line[x], factor * line[column], color=color, marker="o", markersize=3, label=f"{value:g}")
            style = {"markersize": 10, "fillstyle": "none", "color": "#c00000", "label": "chosen"}
            axes.plot(mark[x], factor * mark[column], "o", **style)
            ticks = sorted({*table[x], *mark[x]})
            axes.set_xscale("symlog" if 0 in ticks else "log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.set(xlabel=_NAMES[x], ylabel=label)
            axes.grid(axis="y", color="#dddddd")
        axes.legend(title=_NAMES[series], loc="center left", bbox_to_anchor=(1.0, 0.5))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()


def _to_svg(figure: Figure, *, chart_id: str, description: str) -> Markup:
    """Returns the figure as an <svg> element with its own ids, in the page's font and colours."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": chart_id}), warnings.catch_warnings():
        # The font used for measuring lacks letters that the page's fonts have.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|defs>\s*<style).*?</(metadata|style>\s*</defs)>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{chart_id}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
    return Markup(svg)  # noqa: S704 - matplotlib escaped the names
