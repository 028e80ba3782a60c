"""The page in headless Chromium, at phone and desk width, in both colour schemes."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest

from raypipe.formats.voc.read import VOC_CLASSES
from raypipe.ops.cooccurrence import Pair
from raypipe.reports.content import ClassCount, Confusion, Counts, LabelPairs, Quarantined, RiskCurves, SweepPlots
from raypipe.reports.html import render_report
from raypipe.results import Decision, Score

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

MEASURE = """
const frame = document.querySelector("iframe");
frame.onload = () => setTimeout(() => {
  const page = frame.contentDocument, root = page.documentElement, slider = page.querySelector("input[type=range]");
  page.querySelectorAll("details").forEach((details) => { details.open = true; });
  const stage = page.querySelector(".stage");
  slider.value = 25;
  slider.dispatchEvent(new Event("input"));
  const outside = [...page.querySelectorAll("body *")].filter((element) =>
    element.getBoundingClientRect().right > root.clientWidth + 1 &&
    !element.closest(".scroll, .strip, nav ul, pre, .sr"));
  document.title = JSON.stringify({
    width: root.scrollWidth,
    outside: outside.map((element) => element.outerHTML.slice(0, 80)),
    broken: [...page.images].filter((image) => !image.naturalWidth).map((image) => image.alt),
    images: page.images.length,
    sliders: page.querySelectorAll("article input[type=range]").length,
    cut: stage.style.getPropertyValue("--cut"),
    said: slider.getAttribute("aria-valuetext"),
    hidden: [...page.querySelectorAll(".strip")].map((strip) => strip.scrollWidth > strip.clientWidth + 1),
    faded: [...page.querySelectorAll(".strip")].map((strip) => ["left", "right"].map((side) =>
      strip.style.getPropertyValue(`--hidden-${side}`))),
    masks: [...page.querySelectorAll(".strip")].map((strip) => frame.contentWindow.getComputedStyle(strip).maskImage),
    paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  });
}, 300);
"""


@pytest.fixture
def page(make_report, make_sample) -> str:
    """A page with everything on it, long names included."""
    names = ("background", *VOC_CLASSES)
    rng = np.random.default_rng(0)
    score = Score(
        stage="cam",
        split="a_rather_long_name_of_a_split",
        num_images=123456,
        mean_iou=0.5,
        class_iou=dict.fromkeys(names, 0.5),
        post_processing="background 0.15, best on a_rather_long_name_of_a_split",
        truth_digest="0123456789ab",
        num_unscored=0,
    )
    epoch = {"epoch": 0, "loss": 1.0, "lr": 0.1, "images_per_second": 1.0, "share_waiting": 0.1, "seconds": 9.0}
    summary = {"num_rows": 123456, "num_finished": 123456, "num_quarantined": 9, "num_computed": 9, "seconds": 1e6}
    pair = Pair(first=0, second=1, num_both=50, num_first=50, num_second=60, share=1.0, lift=9.0, deviation=9.0)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="600" height="200"><rect width="9" height="9"/></svg>'
    long_id = "folder/" * 20 + "image.jpg"
    return render_report(
        make_report(
            about={"dataset": "s3://" + "bucket/" * 30, "settings": "walk; " * 40},
            counts=Counts(
                num_masks=123456,
                num_empty=0,
                predicted_iou=0.5,
                classes=[
                    ClassCount(
                        name=name + " with a long name",
                        num_labelled=10**6,
                        num_masks=10**6,
                        num_shown=9,
                        area=0.1,
                        predicted_iou=0.5,
                    )
                    for name in VOC_CLASSES
                ],
            ),
            decisions=[
                Decision(
                    refinement="walk",
                    judge="class consistency",
                    kept=True,
                    reason="",
                    num_images=64,
                    before=0.1,
                    after=0.2,
                    difference=0.1,
                    standard_error=0.00001,
                )
            ],
            classes=VOC_CLASSES,
            scores=[score, replace(score, stage="walk")],
            curves={"classifier": [epoch | {"num_images": 5, "num_unreadable": 0}]},
            samples=[make_sample(long_id, size=(200, 300)), make_sample("tall", size=(300, 100), kind="worst")],
            confusions=[Confusion(stage="walk", split="val", matrix=rng.integers(0, 99, (21, 21)))],
            label_pairs=LabelPairs(num_images=900, pairs=[pair]),
            risks=[
                RiskCurves(title="Risk", note="note", coverages=(0.5, 1.0), risks={"a": (0.1, 0.2), "b": (0.1, 0.2)})
            ],
            sweeps=[SweepPlots(name="0123", facts={"chosen": "alpha 4"}, plots={"alpha": svg})],
            streams={"masks": summary},
            quarantine=[Quarantined(stage="Decode", reason="broken " * 40, num_images=7, image_ids=(long_id,))],
            provenance={"manifest": "s3://" + "bucket/" * 30, "config": "a: " + "b" * 300 + "\nc: d"},
        )
    )


def browse(folder: Path, html: str, *options: str) -> tuple[str, str]:
    """The document after its scripts, and what Chromium logged."""
    (folder / "page.html").write_text(html)
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    command += [
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        f"file://{folder / 'page.html'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_everything_loads_and_fits(page: str, tmp_path: Path, width: int, scheme: str) -> None:
    # A window can't be as narrow as a phone, a frame can; without a source of its own it may be looked into.
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{escape(page)}"></iframe>'
    wrapper = f"<!doctype html><body>{frame}<script>{MEASURE}</script>"
    options = ["--window-size=2000,1000"]
    if scheme == "dark":
        options.append("--blink-settings=preferredColorScheme=0")
    document, log = browse(tmp_path, wrapper, *options)
    found = json.loads(unescape(re.search(r"<title>(.*?)</title>", document, flags=re.DOTALL)[1]))
    assert "CONSOLE" not in log
    assert found["broken"] == []
    assert found["outside"] == []
    assert found["width"] <= width
    assert found["images"] == 2 * 7 + 2 * 2 + 1
    assert found["sliders"] == 2
    assert found["cut"] == "25%"
    assert found["hidden"] == [width == 390] * 2
    assert found["faded"] == [["0px", "24px" if width == 390 else "0px"]] * 2
    assert all("linear-gradient" in mask for mask in found["masks"])
    assert found["said"] == "25 % CAM, the rest segmenter"
    assert found["paper"] == ("rgb(247, 247, 245)" if scheme == "light" else "rgb(20, 22, 26)")


def test_alone_it_logs_nothing_and_its_script_may_run(page: str, tmp_path: Path) -> None:
    document, log = browse(tmp_path, page)
    assert "CONSOLE" not in log
    assert document.count('<details class="compare"') == 1 + 2  # the template's, and one a sample
