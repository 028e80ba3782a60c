"""What an output folder remembers of its last run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.pipelines.classifier import train_classifier
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.last_run import (
    RUN_FILE,
    OtherManifest,
    changed_classes,
    check_manifest,
    find_last_run,
    remember_run,
)


def make_context(
    out: Path, ids: range, *options: str, classes: tuple[str, ...] = ("cat", "dog"), images: Path = Path("/absent")
) -> Context:
    rows = [{"image_id": f"{number}", "image_uri": f"{images}/{number}.jpg", "labels": ["cat"]} for number in ids]
    return Context(load_config("", ["manifest=m.parquet", f"out={out}", *options]), Manifest.from_rows(rows, classes))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """An `out` with a run of 1,000 images."""
    context = make_context(tmp_path, range(1000), "walk.beta=8")
    assert find_last_run(str(tmp_path)) is None
    remember_run(context, check_manifest(context, reuse=False))
    return tmp_path


def test_a_grown_manifest_goes_on(first: Path) -> None:
    uris = check_manifest(make_context(first, range(10_000)), reuse=False)
    assert len(uris) == 256
    assert {uri == f"/absent/{image_id}.jpg" for image_id, uri in uris.items()} == {True}
    check_manifest(make_context(first, range(400, 2000)), reuse=False)
    check_manifest(make_context(first, range(1000), classes=("cat", "dog", "emu")), reuse=False)


@pytest.mark.parametrize(
    ("ids", "classes", "message"),
    [
        (range(600, 2000), ("cat", "dog"), r"images have changed: .*/m\.parquet as it was, and of 256 of its images"),
        (
            range(1000),
            ("dog", "cat"),
            r"the classes cat, dog, and this one has dog, cat \(classes in another order\): .*--reuse-out",
        ),
        (range(1000), ("cat",), r"^the manifest's classes have changed: .* this one has cat \(class dog gone\):"),
    ],
    ids=["other images", "other order", "fewer classes"],
)
def test_another_manifest_is_refused(first: Path, ids: range, classes: tuple[str, ...], message: str) -> None:
    context = make_context(first, ids, classes=classes)
    with pytest.raises(OtherManifest, match=message):
        check_manifest(context, reuse=False)
    elsewhere = Context(context.config.model_copy(update={"manifest": "other.parquet"}), context.manifest)
    with pytest.raises(OtherManifest, match=r"^\S+ holds a run of another manifest, \S+/m\.parquet, "):
        check_manifest(elsewhere, reuse=False)
    remember_run(context, check_manifest(context, reuse=True))
    assert check_manifest(context, reuse=False)


def test_classes_that_differ_are_named() -> None:
    assert changed_classes(["cat", "dog"], ["cat", "emu", "fox"]) == ["classes emu, fox new", "class dog gone"]
    assert changed_classes(["cat"], ["cat"]) == []


def test_an_id_in_two_parts_is_left_to_the_check_of_ids(tmp_path: Path) -> None:
    for number, uri in enumerate(("/absent/a.jpg", None)):
        rows = [{"image_id": "a", "image_uri": uri, "labels": ["cat"]}]
        write_manifest(Manifest.from_rows(rows, ("cat",)), f"{tmp_path}/m/{number}.parquet")
    context = open_context(load_config("", [f"manifest={tmp_path}/m", f"out={tmp_path}/out"]))
    assert list(check_manifest(context, reuse=False)) == ["a"]


def make_images(folder: Path, *, of: str, number: int = 40) -> Path:
    folder.mkdir()
    for each in range(number):
        (folder / f"{each}.jpg").write_text(f"{of} {each}")
    return folder


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """An `out` with a run of 40 images that are there."""
    context = make_context(tmp_path / "out", range(40), images=make_images(tmp_path / "old", of="photograph"))
    remember_run(context, check_manifest(context, reuse=False))
    return tmp_path / "out"


def test_a_dataset_that_was_moved_goes_on_and_another_one_of_the_same_ids_is_refused(
    second: Path, tmp_path: Path
) -> None:
    moved = make_images(tmp_path / "moved", of="photograph")
    check_manifest(make_context(second, range(40), images=moved), reuse=False)
    other = make_context(second, range(40), images=make_images(tmp_path / "other", of="drawing"))
    with pytest.raises(
        OtherManifest, match=r"of 16 images that have the same ids, 16 are others, such as \d+: .*/old/"
    ) as e:
        check_manifest(other, reuse=False)
    assert "/other/" in str(e.value)
    assert "which holds something else: give another `out`" in str(e.value)
    assert "`raypipe run --reuse-out`" in str(e.value)
    remember_run(other, check_manifest(other, reuse=True))
    assert check_manifest(other, reuse=False)
    with pytest.raises(OtherManifest, match=r"/moved/\d+\.jpg now, which holds something else"):
        check_manifest(make_context(second, range(40), images=moved), reuse=False)


def test_images_that_cannot_be_compared_count_as_others(second: Path, first: Path, tmp_path: Path) -> None:
    there = make_images(tmp_path / "there", of="photograph")
    with pytest.raises(OtherManifest, match=r"can't be compared, as one couldn't be read: .*--reuse-out"):
        check_manifest(make_context(second, range(40), images=tmp_path / "absent"), reuse=False)
    with pytest.raises(OtherManifest, match="can't be compared, as one couldn't be read"):
        check_manifest(make_context(first, range(1000), images=there), reuse=False)


def test_some_images_may_be_others_and_files_of_unchanged_uris_are_not_read(second: Path, tmp_path: Path) -> None:
    context = make_context(second, range(40), images=tmp_path / "old")
    last = find_last_run(str(second))
    assert last is not None
    mended = list(last.images)[:8]
    rows = [
        row | {"image_uri": f"/mended/{row['image_id']}.png"} if row["image_id"] in mended else row
        for row in context.manifest.table.to_pylist()
    ]
    check_manifest(Context(context.config, Manifest.from_rows(rows, context.classes)), reuse=False)
    for path in (tmp_path / "old").iterdir():
        path.unlink()
    check_manifest(context, reuse=False)


def test_a_file_of_another_version_ends_in_one_message(first: Path) -> None:
    path = first / RUN_FILE
    content = json.loads(path.read_text())
    del content["images"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"run\.json has no 'images': another version .* Delete this file"):
        find_last_run(str(first))


def test_options_that_change_nothing_are_no_difference(first: Path) -> None:
    last = find_last_run(str(first))
    assert last is not None
    other = make_context(first, range(1), "walk.beta=4", "cluster.num_cpus=2", "budget.max_rows=5")
    assert last.differences(other.config) == ["walk.beta 8 → 4"]


def test_a_command_that_trains_nothing_names_the_options_of_the_last_run(first: Path) -> None:
    context = replace(make_context(first, range(1000), "walk.beta=8", "classifier.epochs=7"), trains=False)
    with pytest.raises(
        ValueError, match=r"has no classifier that was trained with these options: its last run"
    ) as error:
        train_classifier(context)
    assert "classifier.epochs 15 → 7" in str(error.value)
    assert "raypipe run CONFIG" in str(error.value)


def test_nor_does_it_predict_saliency_first(first: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"never read as a network")
    saliency = ["classifier.saliency=eps", f"saliency.weights={tmp_path}/weights.onnx"]
    context = replace(make_context(first, range(1000), *saliency), trains=False)
    with pytest.raises(ValueError, match="has no classifier that was trained with these options"):
        train_classifier(context)
    assert not (first / "saliency").exists()
