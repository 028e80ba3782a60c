"""A finished run as Python reads it: made in this process, by its stages; no Ray."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from finished_runs import write_run

import raypipe
from raypipe import storage
from raypipe.api.masks import Masks, NoMask
from raypipe.api.run import FinishedRun, open_run
from raypipe.config import ConfigError
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import ShardError
from raypipe.pages.finished import NotFinished
from raypipe.schema import CLASSES_KEY, MASKS

IMAGES = {"photo_1": ["cat", "dog"], "photo_2": ["dog"], "empty": [], "broken": ["cat"], "late": ["cat"]}
"""The last has no mask yet."""
DONE = ["photo_1", "photo_2", "empty"]


def make_run(folder: str, jpeg: bytes, classifier: str, affinity: str) -> str:
    """Writes images, manifest, config and masks to a folder; the config's URI."""
    rows = []
    for image_id, labels in IMAGES.items():
        uri = storage.join(folder, f"{image_id}.jpg")
        storage.write_bytes_atomic(uri, b"nothing" if image_id == "broken" else jpeg)
        rows.append({"image_id": image_id, "image_uri": uri, "labels": labels, "split": "train"})
    manifest = storage.join(folder, "manifest.parquet")
    write_manifest(Manifest.from_rows(rows, ("cat", "dog")), manifest)
    return write_run(folder, manifest, {"classifier": classifier, "affinity": affinity}, first=len(IMAGES) - 1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes, classifier_uri: str, affinity_uri: str) -> str:
    return make_run(str(tmp_path_factory.mktemp("run")), jpeg, classifier_uri, affinity_uri)


@pytest.fixture
def run(config: str) -> FinishedRun:
    return open_run(config)


def test_no_ray_is_started(config: str) -> None:
    before = ray.is_initialized()
    assert len(open_run(config).masks) == 3
    assert ray.is_initialized() == before


def test_a_run_says_what_it_is(run: FinishedRun) -> None:
    assert repr(run).endswith("/out: 5 images of 2 classes)")
    assert run.classes == ("cat", "dog")
    assert len(run.manifest) == 5
    assert run.manifest.table["labels"].to_pylist() == list(IMAGES.values())
    assert run.config.walk.num_steps == 20
    assert run.decisions == []


def test_masks_one_by_one(run: FinishedRun) -> None:
    assert len(run.masks) == 3
    assert run.masks.ids == DONE
    found = {mask.image_id: mask for mask in run.masks}
    assert sorted(found) == sorted(DONE)
    for image_id, mask in found.items():
        assert mask.array.shape == mask.confidence.shape == mask.size == (61, 83)
        assert mask.array.dtype == np.uint8
        assert mask.before_refinement is not None
        assert np.array_equal(mask.array, decode_mask(mask.png))
        named = {"background", *IMAGES[image_id]}
        assert set(mask.areas) == set(mask.mean_confidences) <= named
        for name, share in mask.areas.items():
            class_id = 0 if name == "background" else run.classes.index(name) + 1
            assert share == pytest.approx(np.mean(mask.array == class_id))
    assert found["empty"].areas == {"background": 1}
    assert repr(found["empty"]) == "Mask('empty', 61 x 83: background 100%)"


def test_a_mask_by_its_id(run: FinishedRun) -> None:
    assert "photo_2" in run.masks
    assert "late" not in run.masks
    mask = run.masks["photo_2"]
    assert mask.image_id == "photo_2"
    assert {each.image_id: each.png for each in run.masks}["photo_2"] == mask.png
    image = run.masks.image("photo_2")
    assert image.shape == (61, 83, 3)
    with pytest.raises(
        NoMask, match=r"/masks/\w+ has no mask of 'photo_3' .*quarantine.*: did you mean 'photo_"
    ) as error:
        run.masks["photo_3"]
    assert not str(error.value).startswith("'")
    for image_id in ("late", "broken"):  # they are in the manifest, so nobody has misspelt them
        with pytest.raises(NoMask, match=rf"has no mask of '{image_id}' \(.*\)$"):
            run.masks[image_id]
    with pytest.raises(KeyError, match="has no mask of 'late'"):
        run.masks.image("late")


def test_masks_as_arrow(run: FinishedRun) -> None:
    table = run.masks.to_arrow()
    assert table.schema.equals(MASKS.with_metadata(table.schema.metadata))
    assert table.schema.metadata[CLASSES_KEY] == b'["cat", "dog"]'
    assert sorted(table["image_id"].to_pylist()) == sorted(DONE)
    few = run.masks.to_arrow(["areas", "image_id"])
    assert few.column_names == ["areas", "image_id"]
    assert few.num_rows == 3
    assert [table.num_rows for table in run.masks.tables(["image_id"])] == [3]
    with pytest.raises(ValueError, match=r"masks have no columns \['area'\]; they have \['image_id', 'height'"):
        run.masks.to_arrow(["area"])


def test_masks_travel_to_other_processes(run: FinishedRun) -> None:
    png = run.masks["photo_1"].png
    travelled = pickle.loads(pickle.dumps(run.masks))  # noqa: S301 - our own
    assert isinstance(travelled, Masks)
    assert travelled["photo_1"].png == png


def test_what_failed_has_a_reason(run: FinishedRun) -> None:
    (row,) = run.quarantine.to_pylist()
    assert row["image_id"] == "broken"
    assert row["stage"] == "FetchImages"


def test_an_explanation_ends_in_the_mask(run: FinishedRun) -> None:
    found = run.explain("photo_1", pixel=(3, 4))
    assert found.mask_png == run.masks["photo_1"].png
    assert found.num_different == 0
    assert "CAM of dog" in found.to_html()
    with pytest.raises(ValueError, match="broken has no mask, it is in quarantine"):
        run.explain("broken")


def test_a_single_image_gets_the_mask_that_the_run_made(run: FinishedRun, config: str) -> None:
    networks = {"classifier": run.finished.maps.uri, "affinity": run.finished.affinity.uri}
    uri = Path(config).parent / "photo_1.jpg"
    mask = raypipe.segment_image(uri, ["dog", "cat"], config=config, device="cpu", **networks)
    assert {**mask.row, "image_id": "photo_1"} == run.masks["photo_1"].row
    assert run.segment_image(uri, ["dog", "cat"], device="cpu").row == mask.row


def test_a_picture_is_walked_only_where_the_gates_let_it(run: FinishedRun, config: str) -> None:
    unwalked = FinishedRun(open_run(config, "walk.num_steps=0").context)
    object.__setattr__(run, "finished", replace(run.finished, context=unwalked.context))
    mask = run.segment_image(Path(config).parent / "photo_1.jpg", ["dog", "cat"], device="cpu")
    assert mask.row["walk_steps"] != run.masks["photo_1"].row["walk_steps"]


def test_given_maps_are_none_of_another_picture(run: FinishedRun) -> None:
    config = run.config.model_copy(update={"checkpoints": run.config.checkpoints.model_copy(update={"seeds": "maps"})})
    given = FinishedRun(replace(run.context, config=config))
    object.__setattr__(given, "finished", run.finished)
    with pytest.raises(ValueError, match="the run's maps were given"):
        given.segment_image(b"", ["dog"])


def test_other_settings_mean_other_masks(config: str) -> None:
    other = open_run(config, "walk.beta=3")
    assert other.config.walk.beta == 3
    with pytest.raises(NotFinished, match="has no masks of this config; `raypipe masks CONFIG`"):
        other.masks  # noqa: B018 - looks for them


def test_a_loaded_config(config: str) -> None:
    loaded = open_run(config).config
    assert open_run(loaded).masks.ids == DONE
    with pytest.raises(ValueError, match=r"overrides \['walk.beta=3'\]"):
        open_run(loaded, "walk.beta=3")


def test_a_path_and_what_is_not_there(config: str, tmp_path: Path) -> None:
    assert open_run(Path(config)).masks.ids == DONE
    with pytest.raises(ConfigError, match="there is no config file"):
        open_run(tmp_path / "nothing.yaml")


def test_a_damaged_shard_is_named(tmp_path: Path, jpeg: bytes, classifier_uri: str, affinity_uri: str) -> None:
    run = open_run(make_run(str(tmp_path), jpeg, classifier_uri, affinity_uri))
    for shard in Path(run.masks.uri).glob("shards/*/*.parquet"):
        shard.write_bytes(b"nothing")
    with pytest.raises(ShardError, match="can't be read"):
        list(run.masks)
    with pytest.raises(ShardError, match="can't be read"):
        run.masks["photo_1"]


def test_a_run_on_an_object_store(bucket: str, jpeg: bytes, classifier_uri: str, affinity_uri: str) -> None:
    config = make_run(f"{bucket}/run", jpeg, classifier_uri, affinity_uri)
    run = raypipe.open_run(config)
    assert run.masks.uri.startswith(bucket)
    assert run.masks.glob == f"{run.masks.uri}/shards/*/*.parquet"
    assert [mask.array.shape for mask in run.masks] == [(61, 83)] * 3
    assert run.masks["photo_1"].png
    assert run.masks.image("photo_1").shape == (61, 83, 3)
    assert run.explain("photo_1").num_different == 0


def test_relative_paths_count_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("manifest: manifest.parquet\nout: out\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=r"no manifest .*elsewhere/manifest\.parquet\. Relative paths"
    ) as refused:
        open_run(str(config))
    assert "count from the working directory, " + str(tmp_path / "elsewhere") in str(refused.value)
