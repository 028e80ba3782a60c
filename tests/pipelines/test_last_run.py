"""What an output folder remembers of its last run."""

from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.pipelines.context import Context
from raypipe.pipelines.last_run import OtherManifest, check_manifest, find_last_run, remember_run


def make_context(out: Path, ids: range, *options: str, classes: tuple[str, ...] = ("cat", "dog")) -> Context:
    rows = [{"image_id": f"{number}", "image_uri": f"{number}.jpg", "labels": ["cat"]} for number in ids]
    return Context(load_config("", ["manifest=m.parquet", f"out={out}", *options]), Manifest.from_rows(rows, classes))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """An `out` with a run of 1,000 images."""
    context = make_context(tmp_path, range(1000), "walk.beta=8")
    assert find_last_run(str(tmp_path)) is None
    remember_run(context, check_manifest(context, reuse=False))
    return tmp_path


def test_a_grown_manifest_goes_on(first: Path) -> None:
    image_ids = check_manifest(make_context(first, range(100_000)), reuse=False)
    assert len(set(image_ids)) == 256
    check_manifest(make_context(first, range(400, 2000)), reuse=False)
    check_manifest(make_context(first, range(1000), classes=("cat", "dog", "emu")), reuse=False)


@pytest.mark.parametrize(
    ("ids", "classes", "message"),
    [
        (range(600, 2000), ("cat", "dog"), r"holds a run of another manifest, .*m\.parquet, and of 256 of its images"),
        (range(1000), ("dog", "cat"), r"of the classes cat, dog, and this manifest has dog, cat: .*--reuse-out"),
        (range(1000), ("cat",), "this manifest has cat:"),
    ],
    ids=["other images", "other order", "fewer classes"],
)
def test_another_manifest_is_refused(first: Path, ids: range, classes: tuple[str, ...], message: str) -> None:
    context = make_context(first, ids, classes=classes)
    with pytest.raises(OtherManifest, match=message):
        check_manifest(context, reuse=False)
    remember_run(context, check_manifest(context, reuse=True))
    assert check_manifest(context, reuse=False)


def test_options_that_change_nothing_are_no_difference(first: Path) -> None:
    last = find_last_run(str(first))
    assert last is not None
    other = make_context(first, range(1), "walk.beta=4", "cluster.num_cpus=2", "budget.max_rows=5")
    assert last.differences(other.config) == ["walk.beta 8 → 4"]
