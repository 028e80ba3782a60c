import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tifffile")

from rasters import PLACE, tiff

from raypipe import storage
from raypipe.config import Images
from raypipe.data import scenes
from raypipe.data.images import decode_image
from raypipe.data.opening import ImageError
from raypipe.data.scenes import Window, find_scenes, open_scene, read_geotags, read_image

RNG = np.random.default_rng(0)
WIDE = RNG.integers(200, 3000, (200, 304, 4), dtype=np.uint16)


@pytest.fixture
def scene(tmp_path: Path) -> str:
    (tmp_path / "scene.tif").write_bytes(tiff(WIDE, extratags=PLACE))
    return str(tmp_path / "scene.tif")


def test_nothing_is_looked_at_where_no_option_asks(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "read_many", None)
    assert find_scenes([scene], Images()) == {}


def test_pages_show_a_scene_reduced(scene: str, tmp_path: Path, jpeg: bytes) -> None:
    shown = read_image(scene, Images(bands=(1, 2, 3), max_side=100))
    assert shown.pixels.shape == (66, 100, 3)
    assert (shown.original_height, shown.original_width) == (200, 304)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    photo = read_image(str(tmp_path / "a.jpg"), Images(tile=64))
    assert np.array_equal(photo.pixels, decode_image(jpeg).pixels)
    with pytest.raises(ImageError, match="nothing says which are red"):
        read_image(scene, Images(tile=64))


def test_percentiles_are_taken_once_a_process(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    sample = scenes.Raster._sample
    monkeypatch.setattr(scenes.Raster, "_sample", lambda raster: (counts.update(["sampled"]), sample(raster))[1])
    for tile in (64, 128):
        for _ in range(3):
            assert open_scene(scene, Images(bands=(1, 2, 3), tile=tile)) is not None
    assert counts["sampled"] == 1


def test_a_file_that_changed_is_read_anew(scene: str) -> None:
    images = Images(bands=(1,), tile=64)
    before = open_scene(scene, images)
    Path(scene).write_bytes(tiff(WIDE[:180] * 3))
    after = open_scene(scene, images)
    assert before is not None
    assert after is not None
    assert (before.height, after.height) == (200, 180)
    assert before.limits != after.limits


def test_a_scene_in_a_container(scene: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(scene, "scene.tif")
    with tarfile.open(tmp_path / "a.tar") as tar:
        member = tar.getmember("scene.tif")
    uri = f"{tmp_path}/a.tar#offset={member.offset_data}&length={member.size}"
    try:
        found = find_scenes([uri], Images(bands=(1, 2, 3), tile=64))[uri]
    except KeyError:
        pytest.fail("the place isn't written so")
    assert isinstance(found, scenes.Scene)
    loose = open_scene(scene, Images(bands=(1, 2, 3), tile=64))
    assert loose is not None
    whole = slice(0, 200), slice(0, 304)
    assert np.array_equal(found.read(*whole), loose.read(*whole))


@pytest.mark.parametrize("size", [(200, 304), (64, 1000), (1000, 60), (65, 65)])
def test_drawn_tiles_cover_the_scene(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.zeros(size, np.uint8)))
    scene = open_scene(str(path), Images(tile=64))
    assert scene is not None
    rng, covered = np.random.default_rng(0), np.zeros(size, bool)
    for _ in range(600):
        window = scene.draw_tile(rng)
        assert window.top % 8 == window.left % 8 == 0
        assert (window.height, window.width) == (min(64, size[0]), min(64, size[1]))
        covered[window.cut()] = True
    assert covered[: size[0] // 8 * 8, : size[1] // 8 * 8].mean() > 0.95


def test_a_window_of_a_map() -> None:
    window = Window(16, 8, 64, 60, (200, 300))
    cells = np.arange(25 * 38, dtype=np.uint16).reshape(25, 38).astype(np.uint8)
    assert np.array_equal(window.part(cells, stride=8), cells[2:10, 1:9])
    with pytest.raises(ValueError, match=r"\(25, 37\) \(height, width\), the scene asks for \(25, 38\)"):
        window.part(cells[:, :-1], stride=8)


def test_where_a_scene_lies(scene: str, tmp_path: Path, jpeg: bytes) -> None:
    assert [tag.code for tag in read_geotags(scene)] == [code for code, *_ in PLACE]
    (tmp_path / "a.jpg").write_bytes(jpeg)
    assert read_geotags(str(tmp_path / "a.jpg")) == ()
    with pytest.raises(FileNotFoundError):
        read_geotags(str(tmp_path / "absent.tif"))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bands": (1, 2)}, r"bands are three \(red, green, blue\) or one \(grey\), got \[1, 2\]"),
    ({"bands": ()}, "bands are three"),
    ({"bands": (0, 1, 2)}, "greater than or equal to 1"),
    ({"tile": 100}, "multiple of 64"),
    ({"tile": 2048}, "tile 2048 is above max_side 1024"),
    ({"tile": 0}, "greater than or equal to 64"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Images(**options)
