from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.artifacts import digest
from raypipe.data.arrays import decode_cam
from raypipe.data.given_seeds import encode_seed
from raypipe.schema import GIVEN_SEEDS
from raypipe.stages.base import Row, Stage, columns_after, with_error_columns
from raypipe.stages.given_seeds import FitSeeds, ProvideSeeds

CLASSES = ("bird", "cat", "dog")
HEIGHT, WIDTH = 20, 30
NAN = float("nan")

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


def rising(name: str) -> FloatArray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    return (columns + 0.5) / WIDTH if name == "dog" else (rows + 0.5) / HEIGHT


def row_of(maps: dict[str, FloatArray] | None, **changes: object) -> Row:
    given = dict.fromkeys(GIVEN_SEEDS.names) if maps is None else encode_seed(maps)
    return {"image_id": "a", "class_ids": [1, 3], "height": HEIGHT, "width": WIDTH, **given, **changes}


def process(maps: dict[str, FloatArray] | None, *, out_stride: Any = 4, **changes: object) -> Row:
    row = row_of(maps, **changes)
    schema = pa.schema([("image_id", pa.string()), ("class_ids", pa.list_(pa.uint8()))])
    schema = pa.schema([*schema, ("height", pa.int32()), ("width", pa.int32()), *GIVEN_SEEDS])
    table = with_error_columns(pa.Table.from_pylist([row], schema=schema))
    return dict(FitSeeds(classes=CLASSES, out_stride=out_stride)(table).to_pylist()[0])


def cam_of(row: Row) -> FloatArray:
    assert row["error_reason"] is None, row["error_reason"]
    return decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])


def test_cells_have_the_mean_of_their_pixels() -> None:
    cam = cam_of(process({"dog": rising("dog"), "bird": rising("bird")}))
    assert cam.shape == (2, 5, 8)
    centres = np.minimum(4 * np.arange(8) + 2, 29)  # the last cell has two pixels
    np.testing.assert_allclose(cam[1], np.broadcast_to(centres / WIDTH, (5, 8)), atol=1e-3)
    np.testing.assert_allclose(cam[0][:, 0], (4 * np.arange(5) + 2) / HEIGHT, atol=1e-3)


def test_full_size_keeps_them() -> None:
    cam = cam_of(process({"dog": rising("dog")}, out_stride=1, class_ids=[3]))
    np.testing.assert_allclose(cam[0], rising("dog"), atol=1e-3)


@pytest.mark.parametrize("size", [(10, 15), (40, 60), (21, 31)])
def test_the_image_may_be_of_another_size_than_the_maps(size: tuple[int, int]) -> None:
    cam = cam_of(process({"dog": rising("dog")}, height=size[0], width=size[1], class_ids=[3]))
    assert cam.shape == (1, -(-size[0] // 4), -(-size[1] // 4))
    centres = (4 * np.arange(cam.shape[2]) + 2) / size[1]
    np.testing.assert_allclose(cam[0, 0][:-1], centres[:-1], atol=2e-3 if size[0] < 40 else 2e-2)


def test_a_map_of_what_is_hardly_there_stays_weak() -> None:
    """A concept's map times its presence: divided by its maximum it would be as good as one that is surely there."""
    cam = cam_of(process({"dog": np.full((4, 4), 0.03, np.float32)}, class_ids=[3]))
    np.testing.assert_allclose(cam, 0.03, atol=1e-4)


def test_classes_are_found_by_their_names_and_labels_say_which() -> None:
    cam = cam_of(process({"dog": rising("dog"), "wolf": rising("wolf"), "cat": rising("cat")}, class_ids=[2, 3]))
    assert cam.shape == (2, 5, 8)
    np.testing.assert_allclose(cam[1][0], cam_of(process({"dog": rising("dog")}, class_ids=[3]))[0][0])


def test_a_label_without_a_map_is_unknown_everywhere() -> None:
    cam = cam_of(process({"dog": rising("dog")}))
    assert np.isnan(cam[0]).all()
    assert not np.isnan(cam[1]).any()


def test_unknown_cells_stay_unknown() -> None:
    maps = np.full((HEIGHT, WIDTH), NAN, np.float32)
    maps[:4, :3] = 1
    cam = cam_of(process({"dog": maps}, class_ids=[3]))
    assert np.argwhere(~np.isnan(cam[0])).tolist() == [[0, 0]]
    assert cam[0, 0, 0] == 1


def test_an_image_without_labels_needs_no_seeds() -> None:
    assert cam_of(process(None, class_ids=[])).shape == (0, 5, 8)


@pytest.mark.parametrize(
    ("maps", "reason"),
    [
        (None, "there are no seeds of the image"),
        ({"cat": np.ones((2, 2), np.float32)}, r"have maps of \['cat'\] and say nothing of the labels"),
        ({"dog": np.full((2, 2), NAN, np.float32)}, "say nothing of the labels"),
        ({}, "have maps of no class"),
    ],
)
def test_rows_without_seeds_say_why(maps: dict[str, FloatArray] | None, reason: str) -> None:
    row = process(maps)
    assert row["error_stage"] == "FitSeeds"
    assert pa.compute.match_substring_regex(pa.scalar(row["error_reason"]), reason).as_py(), row["error_reason"]


@dataclass(kw_only=True)
class Provider(Stage):
    """Half of each label's map, for images whose ids aren't odd."""

    value: float = 0.5

    reads = ("image_id", "labels")
    writes = GIVEN_SEEDS
    kind = "device"

    def setup(self, device: str) -> None:
        self.device = device

    def process(self, row: Row) -> Row:
        if row["image_id"] == "odd":
            raise ValueError("an odd image")
        return encode_seed({name: np.full((2, 2), self.value) for name in row["labels"]})


def provide(**changes: Any) -> ProvideSeeds:
    fit = FitSeeds(classes=CLASSES, out_stride=4)
    return ProvideSeeds(**{"provider": Provider(), "name": "m:Provider", "version": "1", "fit": fit} | changes)


def test_a_providers_maps_are_fitted_and_its_errors_are_the_rows() -> None:
    stage = provide()
    assert stage.kind == "device"
    assert columns_after(["image_id", "labels", "class_ids", "height", "width"], [stage])
    stage.setup("cpu")
    assert stage.provider.device == "cpu"  # type: ignore[attr-defined]
    rows = [{"image_id": name, "labels": ["dog"], "class_ids": [3], "height": 8, "width": 8} for name in ("a", "odd")]
    table = stage(with_error_columns(pa.Table.from_pylist(rows)))
    good, bad = table.to_pylist()
    np.testing.assert_allclose(cam_of(good), np.full((1, 2, 2), 0.5))
    assert (bad["error_stage"], bad["error_reason"]) == ("Provider", "ValueError: an odd image")
    assert not set(GIVEN_SEEDS.names) & set(table.column_names)


def test_name_version_and_options_tell_one_provider_from_another() -> None:
    stages = [provide(), provide(name="n:Provider"), provide(version="2"), provide(provider=Provider(value=0.25))]
    assert len({digest(stage) for stage in stages}) == 4
    assert digest(provide()) == digest(stages[0])
