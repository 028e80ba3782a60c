import math
import re
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from raypipe.reports.plots import bar_chart, line_chart, setting_charts

NAMES = ["<script>alert(1)</script>", "$\\frac{x$", "犬", "a & b"]


@pytest.fixture
def bars() -> str:
    values = {"CAM": [1.0, 20.0, math.nan, 40.0], "random walk": [10.0, 30.0, math.nan, 50.0]}
    return bar_chart(values, NAMES, chart_id="classes0", description='"train" <split>')


def test_names_are_text_and_escaped(bars):
    assert "<script" not in bars
    texts = [element.text for element in ET.fromstring(bars).iter() if element.tag.endswith("text")]  # noqa: S314
    assert set(NAMES) <= set(texts)


def test_description_is_an_attribute(bars):
    assert ET.fromstring(bars).attrib["aria-label"] == '"train" <split>'  # noqa: S314


def test_colours_follow_the_page(bars):
    assert "var(--series-1)" in bars
    assert "var(--series-2)" in bars
    assert not re.search("#[0-9a-f]{6}", bars)


def test_ids_are_its_own(bars):
    ids = re.findall(r'\bid="([^"]*)"', bars)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("classes0-") for name in ids)
    assert set(re.findall(r"url\(#([^)]*)\)", bars)) <= set(ids)


def test_the_same_data_gives_the_same_chart(bars):
    chart = {"unit": "loss", "chart_id": "c", "description": "d"}
    assert line_chart({"loss": [3.0, 2.0]}, **chart) == line_chart({"loss": [3.0, 2.0]}, **chart)


@pytest.mark.parametrize("heights", [[], [1.0], [1.0, math.nan, 0.5], [0.0, 0.0]])
def test_smoke_lines(heights):
    svg = line_chart({"loss": heights, "background": heights}, unit="loss", chart_id="c", description="d")
    ET.fromstring(svg)  # noqa: S314
    assert "<style" not in svg  # it would style the whole page


def settings_of(alphas, betas, steps):
    return [
        {
            "alpha": a,
            "beta": b,
            "num_steps": t,
            "radius": 5,
            "objective": a / (b + t + 1),
            "one_walk_mean_iou": math.nan,
        }
        for a in alphas
        for b in betas
        for t in steps
    ]


def drawn_lines(svg: str) -> list[int]:
    """Numbers of points of the lines that have markers."""
    groups = re.findall(r'<g id="line2d_\d+">(.*?)</g>\s*</g>', svg, flags=re.DOTALL)
    return [number for group in groups if (number := group.count("<use ")) > 1]


@pytest.mark.parametrize(
    ("chosen", "charts"),
    [
        (
            {"alpha": 1.0, "beta": 8.0, "num_steps": 64},
            {"beta_and_steps": "alpha 2, the nearest to the chosen alpha 1,"},
        ),
        ({"alpha": 2.0, "beta": 8.0, "num_steps": 64}, {}),
        (
            {"alpha": 8.0, "beta": 7.0, "num_steps": 100},
            {"alpha": "beta 8, steps t 64, the nearest to the chosen beta 7, steps t 100,"},
        ),
    ],
)
def test_a_setting_that_the_config_alone_has_is_marked_beside_the_grids_lines(chosen, charts):
    """All but one of the settings have another alpha than 1: a chart of that alpha would be a single dot."""
    rows = settings_of((2.0, 8.0, 32.0), (4.0, 8.0), (0, 16, 64))
    rows += settings_of(*([chosen[name]] for name in ("alpha", "beta", "num_steps")))
    table = pd.DataFrame(rows).drop_duplicates(["alpha", "beta", "num_steps"])
    for name, svg in setting_charts(table, chosen=chosen | {"radius": 5}).items():
        texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]  # noqa: S314
        said = [text for text in texts if "the nearest" in text]
        assert said == [f"at {charts[name]}"] if name in charts else not said
        lines = [line for line in drawn_lines(svg) if line >= 3]
        assert len(lines) == (2 if name == "beta_and_steps" else 1)
        assert "chosen" in texts


@pytest.mark.parametrize("truth", [True, False])
def test_settings_over_steps_and_alpha(truth):
    rows = [
        {
            "alpha": a,
            "beta": b,
            "num_steps": t,
            "radius": radius,
            "objective": a / (b + t + 1),
            "one_walk_mean_iou": 0.5 if truth else math.nan,
        }
        for a in (2.0, 8.0)
        for b in (4.0, 8.0)
        for t in (0, 16, 64)
        for radius in (3, 5)
    ]
    chosen = {"alpha": 8.0, "beta": 4.0, "num_steps": 16, "radius": 5}
    charts = setting_charts(pd.DataFrame(rows), chosen=chosen)
    assert set(charts) == {"alpha", "beta_and_steps"}
    for name, axis, ticks in (("alpha", "alpha", {"2", "8"}), ("beta_and_steps", "steps t", {"0", "16", "64"})):
        texts = {element.text for element in ET.fromstring(charts[name]).iter() if element.tag.endswith("text")}  # noqa: S314
        assert ticks | {axis, "objective (no truth)", "chosen"} <= texts
        assert ("mIoU of one walk, %" in texts) == truth
        assert "#010101" not in charts[name]
