import numpy as np
import pytest

from raypipe.reports.cards import draw_saliency
from raypipe.reports.content import SaliencySample
from raypipe.reports.html import render_report


def make_sample(**changes: object) -> SaliencySample:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    region = np.zeros((40, 60), bool)
    region[:, :15] = True
    plain = {
        "image_id": "<b>a</b>",
        "labels": ("cat",),
        "pixels": pixels,
        "saliency": np.full((20, 30), 0.2, np.float32),
        "foreground": np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7),
        "refined": np.zeros((40, 60), np.float32),
        "inconsistent_region": region,
    }
    return SaliencySample(**{**plain, **changes})  # type: ignore[arg-type]


def test_pictures_have_one_size_and_their_values() -> None:
    pictures = draw_saliency(make_sample())
    assert list(pictures) == ["photograph", "saliency", "foreground", "refined foreground", "dropped"]
    assert {picture.shape for picture in pictures.values() if picture is not None} == {(40, 60, 3)}
    assert np.unique(pictures["saliency"]).tolist() == [51]  # type: ignore[arg-type]
    dropped = pictures["dropped"]
    assert dropped is not None
    assert (dropped[:, :15] == 255).all()
    assert (dropped[:, 15:] < 255).all()


def test_eps_drops_nothing() -> None:
    pictures = draw_saliency(make_sample(refined=None, inconsistent_region=None))
    assert pictures["refined foreground"] is None
    assert pictures["dropped"] is None


def test_the_page_shows_samples_and_the_share_that_is_dropped(make_report) -> None:  # type: ignore[no-untyped-def]
    epoch = {"loss": 1.0, "loss_classification": 0.4, "loss_saliency": 0.6, "lr": 0.1, "images_per_second": 9.0}
    epoch |= {"share_waiting": 0.1, "seconds": 2.0, "num_unreadable": 0, "num_images": 9}
    curves = {"classifier": [epoch | {"dropped_share": share} for share in (0.4, 0.1)]}
    page = render_report(make_report(saliency=[make_sample()], curves=curves))
    assert page.count("<figcaption>") == 5
    assert "<b>a</b>" not in page
    assert "25.0 %" in page
    assert "% of the pixels dropped of classifier by epoch" in page
    plain = render_report(make_report(saliency=[make_sample(inconsistent_region=None)]))
    assert plain.count("<figcaption>") == 4


@pytest.mark.parametrize("metrics", [[], [{"loss": 1.0, "lr": 0.1, "images_per_second": 9.0}]])
def test_without_saliency_the_page_says_nothing_of_it(make_report, metrics) -> None:  # type: ignore[no-untyped-def]
    rest = {"share_waiting": 0.1, "seconds": 2.0, "num_unreadable": 0, "num_images": 9}
    page = render_report(make_report(curves={"classifier": [epoch | rest for epoch in metrics]}))
    assert 'id="saliency"' not in page
    assert "dropped" not in page
