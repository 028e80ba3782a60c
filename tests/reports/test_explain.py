import numpy as np
import pytest

from raypipe.ops.affinity import pair_offsets
from raypipe.reports.explain import Explanation, WalkState, neighbourhood, render_explanation
from raypipe.reports.pictures import draw_heat, draw_region

EVIL = '"><script>alert(1)</script>'


def make_explanation(**changes: object) -> Explanation:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:, 9:] = 1
    plain = {
        "image_id": "a",
        "classes": ("cat",),
        "labels": ("cat",),
        "pixels": np.full((20, 30, 3), 90, np.uint8),
        "class_ids": (1,),
        "cam": np.full((1, 5, 8), 0.4, np.float32),
        "trimap": np.full((3, 4), 255, np.uint8),
        "cell": (2, 3),
        "affinity": np.full((len(pair_offsets(3)), 3, 4), 0.5, np.float32),
        "radius": 3,
        "beta": 2.0,
        "walk": [
            WalkState(num_steps=t, mask=mask, reach=np.eye(3, 4, dtype=np.float32), scores=(0.1, 0.9)) for t in (0, 4)
        ],
        "walk_mask": mask,
        "mask_png": b"png",
        "mask": mask,
        "confidence": mask,
        "predicted_iou": 0.456,
        "truth": mask,
        "class_iou": {"background": 1.0, "cat": 0.5},
        "mean_iou": 0.75,
        "num_different": 0,
        "notes": ["A note."],
        "settings": [("walk.beta", "2")],
        "provenance": [("masks", "somewhere")],
    }
    return Explanation(**{**plain, **changes})  # type: ignore[arg-type]


def test_everything_is_on_the_page() -> None:
    page = render_explanation(make_explanation())
    for text in ("0.46", "75.0", "t = 4", "CAM of cat", "before refinement", "truth", "0.900", "A note.", "somewhere"):
        assert text in page
    assert "pixel by pixel" in page


def test_without_refinement_truth_and_labels() -> None:
    empty = make_explanation(
        labels=(),
        class_ids=(),
        cam=np.zeros((0, 5, 8), np.float32),
        walk_mask=None,
        truth=None,
        mean_iou=None,
        class_iou={},
    )
    page = render_explanation(empty)
    assert "The image has no label" in page
    assert "before refinement" not in page
    assert "truth</figcaption>" not in page


def test_a_mask_that_differs_says_in_how_many_pixels() -> None:
    page = render_explanation(make_explanation(num_different=1234))
    assert "1,234 pixels" in page
    assert "pixel by pixel" not in page


def test_what_comes_from_data_is_escaped() -> None:
    evil = make_explanation(image_id=EVIL, classes=(EVIL,), labels=(EVIL,), notes=[EVIL], settings=[(EVIL, EVIL)])
    assert "<script" not in render_explanation(evil)
    assert "<script" not in evil._repr_html_()


def test_a_notebook_shows_the_page_in_a_frame() -> None:
    shown = make_explanation()._repr_html_()
    assert shown.count("<iframe") == 1
    assert "&lt;html" in shown
    assert "sandbox" in shown
    assert repr(make_explanation()) == "Explanation('a' of cat)"


@pytest.mark.parametrize("cell", [(0, 0), (2, 1), (3, 4)])
def test_neighbourhood_is_the_row_of_the_affinity_matrix(cell: tuple[int, int]) -> None:
    height, width, radius = 4, 5, 3
    rng = np.random.default_rng(0)
    matrix = np.eye(height * width, dtype=np.float32)
    planes = []
    for dy, dx in pair_offsets(radius).tolist():
        plane = rng.random((height, width), dtype=np.float32)
        planes.append(plane)
        for row in range(height - dy):
            for column in range(max(0, -dx), width - max(0, dx)):
                first, second = row * width + column, (row + dy) * width + column + dx
                matrix[first, second] = matrix[second, first] = plane[row, column]
    weights, inside = neighbourhood(np.stack(planes), cell, radius=radius)
    assert np.array_equal(weights.reshape(-1), matrix[cell[0] * width + cell[1]])
    rows, columns = np.mgrid[:height, :width]
    assert np.array_equal(inside, (rows - cell[0]) ** 2 + (columns - cell[1]) ** 2 < radius**2)


def test_heat_and_frame() -> None:
    photo = np.full((16, 24, 3), 100, np.uint8)
    heat = draw_heat(photo, np.array([[0, 1]], np.float32))
    assert np.array_equal(heat[0, 0], [120, 120, 120])  # 60 + 0.6 · 100
    assert heat[0, -1, 0] > 200
    framed = draw_region(photo, (32, 48), (0, 2, 1, 6))  # the picture has half the image's size
    assert np.array_equal(framed[0, 4], [255, 140, 0])
    assert np.array_equal(framed[7, 23], [255, 140, 0])
    assert np.array_equal(framed[0, 3], [100, 100, 100])
    assert np.array_equal(framed[8, 23], [100, 100, 100])
