import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from raypipe.ops.cooccurrence import Pair
from raypipe.reports.content import (
    ClassCount,
    Confusion,
    Counts,
    LabelPairs,
    OwnWalks,
    Quarantined,
    RiskCurves,
    SweepPlots,
)
from raypipe.reports.html import render_report
from raypipe.results import ClassPrecision, Decision, LabelPrecision, Score

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags with attributes, the text, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.unlabelled: list[str] = []
        """Inputs that stand in no label."""
        self.feed(html)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("input", "select") and "label" not in self.open:
            self.unlabelled.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def score(stage="cam", split="train", mean_iou=0.5, **changes):
    plain = {
        "stage": stage,
        "split": split,
        "num_images": 1464,
        "mean_iou": mean_iou,
        "class_iou": {"background": 0.75, "dog": 0.256, "cat": math.nan},
        "post_processing": "none",
        "truth_digest": "0123456789ab",
        "num_unscored": 0,
    }
    return Score(**{**plain, **changes})


def epoch(number, **changes):
    plain = {
        "epoch": number,
        "loss": 1 / (number + 1),
        "loss_background": 0.2,
        "loss_negative": 0.4,
        "lr": 1e-3,
        "num_images": 100,
        "images_per_second": 12.34,
        "share_waiting": 0.25,
        "seconds": 700.0,
        "num_unreadable": 3,
    }
    return {**plain, **changes}


def count(name="dog", **changes):
    plain = {"num_labelled": 1500, "num_masks": 300, "num_shown": 240, "area": 0.1234, "predicted_iou": 0.56}
    return ClassCount(name=name, **{**plain, **changes})


def test_what_is_empty_has_no_section(make_report):
    page = Page(render_report(make_report()))
    assert page.all("section") == page.all("a") == page.all("table") == page.all("img") == page.all("svg") == []
    assert "missing" not in {name for _, tag in page.tags for name in (tag.get("class") or "").split()}


def test_sections_are_those_of_the_navigation_and_have_content(make_report, make_sample):
    report = make_report(
        counts=Counts(num_masks=1, num_empty=0, predicted_iou=0.5, classes=[count()]),
        samples=[make_sample(kind="random", iou=None)],
        provenance={"raypipe": "1"},
    )
    page = Page(render_report(report))
    ids = [section["id"] for section in page.all("section")]
    assert ids == [link["href"].removeprefix("#") for link in page.all("a")] == ["counts", "samples", "provenance"]


def test_the_head_says_what_the_page_is_about(make_report):
    page = Page(
        render_report(make_report(title="Masks of birds", about={"folder": "runs/<first>", "written": "today"}))
    )
    assert page.text.startswith("Masks of birds Masks of birds Segmentation masks")  # title and heading
    assert "folder runs/<first> written today" in page.text


def test_counts_come_first_and_say_what_can_be_said_without_truth(make_report):
    never = count("cat", num_masks=0, num_shown=0, area=math.nan, predicted_iou=math.nan)
    counts = Counts(num_masks=1234, num_empty=7, predicted_iou=0.456, classes=[count(), never])
    summary = {"num_rows": 1235, "num_finished": 1234, "num_quarantined": 1, "num_computed": 9, "seconds": 1.0}
    quarantine = [Quarantined(stage="DecodeImages", reason="truncated", num_images=1, image_ids=("x",))]
    streams = {"masks": summary}
    page = Page(render_report(make_report(counts=counts, streams=streams, quarantine=quarantine)))
    assert page.all("section")[0]["id"] == "counts"
    assert "masks 1,234 of 1,235 images; 1 in quarantine" in page.text
    assert "mean predicted IoU 0.46" in page.text
    assert "masks without any object 7" in page.text
    assert "dog 1,500 300 240 80 12.3 0.56" in page.text
    assert "cat 1,500 0 0 – – –" in page.text
    assert "No image was scored" in page.text
    assert "1 image could not be processed" in page.text
    assert "No image was scored" not in Page(render_report(make_report(counts=counts, scores=[score()]))).text


def test_results_by_split_and_stage(make_report):
    scores = [
        score("cam", "train", 0.4012),
        score("cam", "val", 0.38, num_images=160),
        score("walk", "train", 0.5549, num_unscored=2),
        score("dcrf", "train", 0.5402, post_processing="dcrf"),
    ]
    text = Page(render_report(make_report(scores=scores))).text
    assert "train CAM 40.1 1,464 0 none 0123456789ab" in text
    assert "random walk 55.5 +15.4 1,464 2 none 0123456789ab" in text
    assert "dCRF 54.0 −1.5 1,464 0 dcrf" in text
    assert "val CAM 38.0 160 0" in text
    assert "CAM 40.1 → random walk 55.5 → dCRF 54.0" in text
    assert "dog 25.6 25.6 25.6" in text
    assert "cat – – –" in text


def decision(**changes):
    plain = {
        "refinement": "dcrf",
        "judge": "class consistency",
        "kept": False,
        "reason": "",
        "num_images": 64,
        "before": 0.186,
        "after": 0.009,
        "difference": -0.177,
        "standard_error": 0.0204,
    }
    return Decision(**{**plain, **changes})


def test_gates_say_what_was_kept_and_why(make_report):
    walk = Decision(refinement="walk", judge="objective", kept=True, reason="no image <b>", num_images=0)
    text = Page(render_report(make_report(gate="run", decisions=[walk, decision()]))).text
    assert "random walk objective how well the masks part features and colours – – – 0 kept no image <b>" in text
    assert "0.186 0.009 −0.177 ± 0.020 64 rejected not better with it" in text
    assert "Each image has the better of its masks" in Page(render_report(make_report(gate="image"))).text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"difference": 0.00083, "standard_error": 0.00031}, "+0.00083 ± 0.00031 64 kept better with it, by 2.7"),
        ({"difference": 0.0078, "standard_error": 0.0075}, "+0.0078 ± 0.0075 64 kept better with it, but by 1.0"),
        ({"difference": 0.25, "standard_error": None}, "+0.250 64 kept better with it"),
        ({"difference": -0.1, "reason": "not judged"}, "−0.100 ± 0.020 64 kept not judged"),
    ],
)
def test_gates_have_the_digits_that_tell_a_difference(make_report, changes, words):
    assert words in Page(render_report(make_report(decisions=[decision(kept=True, **changes)]))).text


def test_walks_of_images_are_told(make_report):
    walks = OwnWalks(
        alpha=2.5, num_steps=16, num_images=1200, num_others=700, num_smaller_alpha=600, num_shorter=80, num_longer=90
    )
    text = Page(render_report(make_report(walks=walks))).text
    assert "Of 1,200 walked images 700 took another walk than the run's (alpha 2.5, 16 steps)" in text
    assert "600 with a smaller alpha, which leaves more background, 80 with fewer steps, 90 with more." in text
    assert "took another walk" not in Page(render_report(make_report())).text


def test_all_scores_are_nan(make_report):
    text = Page(render_report(make_report(scores=[score(mean_iou=math.nan), score("walk", mean_iou=math.nan)]))).text
    assert "train CAM – 1,464" in text


def test_many_classes_chart_shows_the_weakest(make_report):
    classes = tuple(f"class {number:03}" for number in range(254))
    ious = {name: 1 - number / 300 for number, name in enumerate(("background", *classes))}
    page = render_report(make_report(classes=classes, scores=[score(class_iou=ious)]))
    assert page.count("<svg") == 1
    chart = page[page.index("<svg") : page.index("</svg>")]
    assert ">class 253<" in chart
    assert ">class 000<" not in chart
    assert "215 others" in Page(page).text
    assert "class 000 99.7" in Page(page).text


def test_sample_pictures_have_alternative_texts_and_sizes(make_report, make_sample):
    page = Page(render_report(make_report(samples=[make_sample()])))
    images = page.all("img")
    names = ["photograph", "CAM", "affinity", "random walk", "refined", "segmenter", "truth"]
    assert [image["alt"] for image in images] == [f"{name} of a/b c.jpg" for name in names]
    assert {(image["width"], image["height"]) for image in images} == {("90", "60")}
    assert all(image["src"].startswith("data:image/webp;base64,") for image in images)
    assert "IoU 43.2" in page.text


def test_samples_stand_in_their_sections(make_report, make_sample):
    samples = [make_sample("c", kind="random", iou=None, truth=None), make_sample("a"), make_sample("b", kind="worst")]
    text = Page(render_report(make_report(samples=samples))).text
    positions = [text.index(word) for word in ("Best a", "Worst b", "Chosen at random c")]
    assert positions == sorted(positions)
    assert text.count("none truth") == 1  # a place is kept for c's missing truth


def test_without_truth_there_is_no_ranking(make_report, make_sample):
    samples = [make_sample(kind="random", iou=None, truth=None, mask=None, segment=None, affinity=None)]
    page = Page(render_report(make_report(samples=samples)))
    assert len(page.all("img")) == 3
    assert "Best" not in page.text
    assert "Worst" not in page.text


def test_images_without_labels_and_classes(make_report, make_sample):
    bare = make_sample(labels=(), class_ids=(), cam=np.zeros((0, 1, 1), np.float32), iou=math.nan)
    text = Page(render_report(make_report(samples=[bare]))).text
    assert "no label" in text
    assert "IoU –" in text


def test_curves_and_their_last_epoch(make_report):
    curves = {"affinity": [epoch(0), epoch(1)], "classifier": []}
    page = Page(render_report(make_report(curves=curves)))
    assert len(page.all("svg")) == 3
    assert "training, affinity – – – 200 1,400.0 0.1" in page.text
    assert "last loss 0.5 images per second 12.3 waiting for data 25 % seconds 1,400 unreadable images 3" in page.text


def test_what_the_classifier_knows_of_each_class(make_report):
    known = LabelPrecision(
        method="held out",
        num_images=60,
        classes=(
            ClassPrecision(name="<cat>", num_positive=20, precision=0.314, chance=0.3, learned=0.9),
            ClassPrecision(name="dog", num_positive=0, precision=None, chance=None, learned=None),
        ),
    )
    html = render_report(make_report(known=known, sayings=["label mAP 0.31 & little"]))
    assert "label mAP 0.31 &amp; little" in html
    assert "&lt;cat&gt;" in html
    assert ">0.31<" in html
    assert "Nobody knows how well the classifier" not in html
    unknown = render_report(make_report(curves={"affinity": [epoch(0)]}))
    assert "Nobody knows how well the classifier" in unknown


def test_streams_and_quarantine(make_report):
    summary = {"num_rows": 1500, "num_finished": 1498, "num_quarantined": 2, "num_computed": 750, "seconds": 300.0}
    streams = {"seeds": summary, "masks": summary | {"num_computed": 0}}
    quarantine = [Quarantined(stage="DecodeImages", reason="truncated", num_images=1234, image_ids=("x.jpg", "y.jpg"))]
    text = Page(render_report(make_report(streams=streams, quarantine=quarantine))).text
    assert "seeds 1,500 1,498 2 750 300.0 2.5" in text
    assert "masks 1,500 1,498 2 0 300.0 –" in text
    assert "together 600.0" in text
    assert "1,234 images could not be processed" in text
    assert "1,234 DecodeImages truncated x.jpg, y.jpg" in text


def test_confusions_and_their_list(make_report):
    matrix = np.array([[90, 10, 0], [5, 45, 50], [0, 0, 0]])
    report = make_report(confusions=[Confusion(stage="dcrf", split="val", matrix=matrix)])
    page = Page(render_report(report))
    assert "dCRF on val" in page.text
    assert "dog cat 50 50.0 100.0" in page.text
    assert page.all("svg")[0]["aria-label"].startswith("Confusion of classes, dCRF on val")


def test_classes_that_come_together(make_report):
    often = Pair(first=1, second=0, num_both=95, num_first=100, num_second=300, share=0.95, lift=3.2, deviation=20.0)
    rare = Pair(first=1, second=0, num_both=50, num_first=100, num_second=300, share=0.5, lift=1.7, deviation=4.0)
    found = LabelPairs(num_images=1000, pairs=[often] + 20 * [rare])
    text = Page(render_report(make_report(label_pairs=found))).text
    assert "cat dog 95 95 100 300 3.2 can't be told apart" in text
    assert "cat dog 50 50 100 300 1.7 often together" in text
    assert "Of 1,000 images" in text
    assert "1 weaker pairs are left out" in text


def test_risk_curves_and_their_values(make_report):
    found = RiskCurves(title="Images", note="n", coverages=(0.25, 0.5, 1.0), risks={"a": (0.1, 0.2, 0.3)})
    page = Page(render_report(make_report(risks=[found])))
    assert "50 20.0 100 30.0" in page.text
    assert len(page.all("svg")) == 1


def test_sweep_plots_are_pictures(make_report):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'
    found = SweepPlots(name="0123", facts={"chosen": "alpha 4", "images": "9"}, plots={"beta and steps": svg})
    (image,) = Page(render_report(make_report(sweeps=[found]))).all("img")
    assert image["src"].startswith("data:image/svg+xml;base64,")
    assert image["alt"] == "Scores of sweep 0123: beta and steps; the chosen setting is alpha 4"


def test_provenance(make_report):
    provenance = {"config": "walk:\n  beta: 8.0\n", "classifier": "abc", "torch": "2.14"}
    page = render_report(make_report(provenance=provenance))
    assert '<pre tabindex="0">walk:\n  beta: 8.0\n</pre>' in page
    assert "classifier abc torch 2.14" in Page(page).text


def test_whatever_comes_from_data_is_escaped(make_report, make_sample):
    report = make_report(
        title=EVIL,
        about={EVIL: EVIL},
        counts=Counts(num_masks=1, num_empty=0, predicted_iou=0.5, classes=[count(EVIL)]),
        classes=(EVIL, "cat"),
        scores=[score(EVIL, EVIL, class_iou={EVIL: 0.5}, post_processing=EVIL, truth_digest=EVIL)],
        curves={EVIL: [epoch(0, **{f"loss_{EVIL}": 1.0})]},
        samples=[make_sample(EVIL, labels=(EVIL,))],
        streams={EVIL: dict.fromkeys(("num_rows", "num_finished", "num_quarantined", "num_computed", "seconds"), 1)},
        quarantine=[Quarantined(stage=EVIL, reason=EVIL, num_images=1, image_ids=(EVIL,))],
        confusions=[Confusion(stage=EVIL, split=EVIL, matrix=np.ones((3, 3), np.int64))],
        label_pairs=LabelPairs(
            num_images=9,
            pairs=[Pair(first=0, second=1, num_both=5, num_first=5, num_second=6, share=1.0, lift=2.0, deviation=3.0)],
        ),
        risks=[RiskCurves(title=EVIL, note=EVIL, coverages=(1.0,), risks={EVIL: (0.5,)})],
        sweeps=[SweepPlots(name=EVIL, facts={"chosen": EVIL}, plots={EVIL: EVIL.encode()})],
        provenance={EVIL: EVIL, "config": f"{EVIL}\n{EVIL}"},
    )
    page = Page(render_report(report))
    assert len(page.all("script")) == 1  # the page's own
    assert all(image["src"].startswith(("data:image/webp", "data:image/svg+xml;base64,")) for image in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 12


def test_page_is_self_contained(make_report, make_sample):
    html = render_report(make_report(samples=[make_sample()], scores=[score()], curves={"classifier": [epoch(0)]}))
    page = Page(html)
    assert page.all("script") == [{}]
    assert not page.all("link")
    targets = [value for _, tag in page.tags for name, value in tag.items() if name in ("src", "href", "xlink:href")]
    assert all(target.startswith(("data:image/webp", "#")) for target in targets)
    assert not re.search(r"@import|url\((?!#)", html)
    script = re.search(r"<script>(.*)</script>", html, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policies = [tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]


def test_page_can_be_used_by_keyboard(make_report, make_sample):
    page = Page(render_report(make_report(samples=[make_sample()], scores=[score()])))
    ids = [tag["id"] for _, tag in page.tags if "id" in tag]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    scrolling = [tag for _, tag in page.tags if set((tag.get("class") or "").split()) & {"scroll", "strip"}]
    assert len(scrolling) == 3
    assert all(tag["tabindex"] == "0" and tag["aria-label"] for tag in scrolling)
    assert len(page.all("main")) == len(page.all("nav")) == len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.unlabelled == []


def test_eighteen_samples_stay_below_four_megabytes(make_report, make_sample):
    # Coarse noise is about as hard to compress as a busy photograph.
    noise = np.random.default_rng(0).integers(0, 255, (94, 125, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    sample = make_sample(size=(376, 500), pixels=noise)
    without, with_one = (len(render_report(make_report(samples=samples))) for samples in ([], [sample]))
    assert without + 18 * (with_one - without) < 4e6


def test_the_same_data_gives_the_same_page(make_report, make_sample):
    report = make_report(samples=[make_sample()], scores=[score()], curves={"classifier": [epoch(0)]})
    assert render_report(report) == render_report(report)
