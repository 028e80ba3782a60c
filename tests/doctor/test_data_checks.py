from pathlib import Path
from typing import Any

import pytest
import s3fs
from botocore.exceptions import EndpointConnectionError

from raypipe.cluster.survey import View
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.doctor import data_checks
from raypipe.doctor.forecast import Sample
from raypipe.messages import message_of
from raypipe.pipelines.context import Context, open_context

ROWS: list[dict[str, Any]] = [
    {"image_id": str(index), "image_uri": f"{index}.jpg", "labels": ["cat"], "split": "train" if index else "val"}
    for index in range(10)
]


def make_context(tmp_path: Path, *overrides: str, rows: list[dict[str, Any]] = ROWS) -> Context:
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(Manifest.from_rows(rows, ("cat", "dog")), uri)
    random = ["network.weights=null"]
    return open_context(load_config("", [f"manifest={uri}", f"out={tmp_path}/out", *random, *overrides]))


def view(**changes: Any) -> View:
    return View(**{"versions": {}, "out": [], "unread": {}, "absent": {}, "cores": 1} | changes)


def test_manifest(tmp_path: Path) -> None:
    found = data_checks.check_manifest(make_context(tmp_path))
    assert (found.status, found.found) == ("ok", "10 rows (train 9, val 1), 2 classes")


def test_manifest_of_other_splits(tmp_path: Path) -> None:
    found = data_checks.check_manifest(make_context(tmp_path, "splits.train=[trian]", "splits.masks=[val]"))
    assert found.status == "problem"
    assert "trian" in found.found


def test_a_manifest_of_several_parts_is_counted_part_by_part(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"image_id": "a", "labels": None}, ROWS[0] | {"image_id": "b", "labels": ["unicorn"]}]
    write_manifest(Manifest.from_rows(rows, ("cat", "dog")), str(tmp_path / "parts"), rows_per_part=4)
    found = data_checks.check_manifest(make_context(tmp_path, f"manifest={tmp_path}/parts", "budget.max_rows=2"))
    assert found.status == "warning"
    assert found.found.startswith("12 rows (train 9, val 3), 2 classes; unknown labels: unicorn; 1 row without labels")
    assert "2 rows would be quarantined" in found.found


@pytest.mark.parametrize(("max_rows", "status"), [(2, "warning"), (1, "problem")])
def test_rows_without_usable_labels(tmp_path: Path, max_rows: int, status: str) -> None:
    rows = [*ROWS, ROWS[0] | {"image_id": "a", "labels": None}, ROWS[0] | {"image_id": "b", "labels": ["unicorn"]}]
    found = data_checks.check_manifest(make_context(tmp_path, f"budget.max_rows={max_rows}", rows=rows))
    assert found.status == status
    assert "unknown labels: unicorn; 1 row without labels; 2 rows would be quarantined" in found.found


def test_images_without_labels_within_the_budget_are_a_remark(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"image_id": "a", "labels": None}]
    found = data_checks.check_manifest(make_context(tmp_path, rows=rows))
    assert (found.status, found.way_out) == ("ok", "")
    assert found.found.endswith("1 image has no label, and no mask is made of such images; nothing to do")
    beyond = data_checks.check_manifest(make_context(tmp_path, "budget.max_rows=0", "budget.max_fraction=0", rows=rows))
    assert beyond.status == "problem"
    assert "leave their split out, or raise budget.max_rows" in beyond.way_out


def test_rows_without_splits_have_none_to_leave_out(tmp_path: Path) -> None:
    rows = [{**row, "split": None} for row in ROWS] + [
        {**ROWS[0], "image_id": "b", "labels": ["unicorn"], "split": None}
    ]
    warned = data_checks.check_manifest(make_context(tmp_path, rows=rows))
    assert warned.status == "warning"
    assert warned.way_out.endswith("or leave them: a run puts them into quarantine")
    refused = data_checks.check_manifest(
        make_context(tmp_path, "budget.max_rows=0", "budget.max_fraction=0", rows=rows)
    )
    assert refused.way_out == "give these rows labels of the manifest's classes, or raise budget.max_rows"


def test_networks_from_random_numbers(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    assert data_checks.network_files(context) == []
    assert data_checks.check_networks(context, {"the driver": view()}).status == "ok"


def test_a_frozen_backbone_needs_its_weights(tmp_path: Path) -> None:
    frozen = ["walk.affinity=frozen", "affinity.start=pretrained", f"network.weights={tmp_path}/weights.pth"]
    context = make_context(tmp_path, *frozen, f"checkpoints.classifier={tmp_path}/given")
    assert f"{tmp_path}/weights.pth" in data_checks.network_files(context)
    (tmp_path / "weights.pth").write_bytes(b"weights")
    found = data_checks.check_networks(make_context(tmp_path, *frozen), {"the driver": view()})
    assert f"affinity: frozen, as in {tmp_path}/weights.pth" in found.found
    (tmp_path / "weights.pth").unlink()
    found = data_checks.check_networks(make_context(tmp_path, *frozen), {})
    assert (found.status, found.found) == ("problem", f"{tmp_path}/weights.pth: there is no such file")


@pytest.mark.parametrize("option", ["network.weights", "checkpoints.classifier"])
def test_storage_that_is_away_has_no_say_on_what_a_run_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    aws = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**aws, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    context = make_context(tmp_path, f"{option}=s3://bucket/network")
    with pytest.raises(EndpointConnectionError) as away:
        data_checks.check_networks(context, {})
    message = message_of(away.value)
    assert message.exit_code == 3
    assert message.text.startswith("s3://bucket/network")
    assert "can't be reached" in message.text
    for_doctor = data_checks.check_networks(context, {"the driver": view(absent={"s3://bucket/network": "away"})})
    assert for_doctor.status == "problem"
    s3fs.S3FileSystem.clear_instance_cache()


def test_weights_of_a_saliency_network(tmp_path: Path) -> None:
    given = (f"saliency.weights={tmp_path}/isnet.onnx",)
    assert data_checks.network_files(make_context(tmp_path, *given)) == []  # nothing asks for saliency
    context = make_context(tmp_path, *given, "classifier.saliency=eps")
    assert data_checks.network_files(context) == [f"{tmp_path}/isnet.onnx"]


def test_given_checkpoints(tmp_path: Path, classifier_uri: str, affinity_uri: str) -> None:
    context = make_context(tmp_path, f"checkpoints.classifier={classifier_uri}", f"checkpoints.affinity={affinity_uri}")
    files = data_checks.network_files(context)
    assert len(files) == 4
    assert all(Path(file).is_file() for file in files)
    assert data_checks.check_networks(context, {"the driver": view()}).status == "ok"
    hidden = data_checks.check_networks(context, {"the driver": view(), "10.0.0.1": view(absent={files[0]: "gone"})})
    assert (hidden.status, hidden.found) == ("problem", f"not found from 10.0.0.1: {files[0]} - gone")


def test_given_maps_need_no_classifier(tmp_path: Path) -> None:
    weights = f"network.weights={tmp_path}/absent.pth"
    assert data_checks.network_files(make_context(tmp_path, weights)) == [f"{tmp_path}/absent.pth"]
    context = make_context(tmp_path, f"checkpoints.seeds={tmp_path}/maps")
    assert data_checks.network_files(context) == [f"{tmp_path}/maps/seeds.json"]
    assert data_checks.check_networks(context, {}).found == "affinity: trained from random numbers"


def test_networks_that_start_from_the_classifier(tmp_path: Path) -> None:
    context = make_context(tmp_path, "affinity.start=classifier", "segmenter.enabled=true")
    found = data_checks.check_networks(context, {}).found
    assert found == (
        "classifier: trained from random numbers; affinity: trained from the classifier; "
        "segmenter: trained from random numbers"
    )


def test_a_checkpoint_of_another_task(tmp_path: Path, classifier_uri: str, affinity_uri: str) -> None:
    found = data_checks.check_networks(
        make_context(tmp_path, f"checkpoints.classifier={affinity_uri}", f"checkpoints.affinity={classifier_uri}"), {}
    )
    assert found.status == "problem"
    assert "expected a checkpoint of task 'classifier'" in found.found


def test_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    rgb = "walk.affinity=rgb"
    unknown = make_context(tmp_path, rgb, "network.weights=torchvision://resnet50/IMAGENET1K_V9")
    assert data_checks.check_networks(unknown, {}).status == "problem"
    context = make_context(tmp_path, rgb, "network.weights=torchvision://resnet50/IMAGENET1K_V2")
    found = data_checks.check_networks(context, {})
    assert found.status == "warning"
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/resnet50-11ad3fa6.pth").write_bytes(b"weights")
    assert data_checks.check_networks(context, {}).status == "ok"


def test_images_unread_on_one_node_are_a_problem_whatever_the_budget() -> None:
    places = {"the driver": view(), "10.0.0.1": view(unread={"a.jpg": "PermissionError"})}
    found = data_checks.check_images(places, num_sampled=16, allowed_share=1)
    assert found.status == "problem"
    assert "from 10.0.0.1: 1 of 16, such as a.jpg (PermissionError)" in found.found
    assert "credentials" in found.way_out


@pytest.mark.parametrize(("allowed", "status"), [(0.5, "warning"), (0.01, "problem")])
def test_images_unread_everywhere_count_against_the_budget(allowed: float, status: str) -> None:
    places = {name: view(unread={"a.jpg": "FileNotFoundError"}) for name in ("the driver", "10.0.0.1")}
    assert data_checks.check_images(places, num_sampled=16, allowed_share=allowed).status == status
    assert data_checks.check_images({"the driver": view()}, num_sampled=16, allowed_share=allowed).status == "ok"


@pytest.mark.parametrize(
    ("quarantined", "allowed", "status"), [({}, 0, "ok"), ({"a": "broken"}, 0.1, "warning"), ({"a": "x"}, 0, "problem")]
)
def test_sample(quarantined: dict[str, str], allowed: float, status: str) -> None:
    sample = Sample(
        num_images=16, quarantined=quarantined, largest=(1, 1), image_bytes=1, random=[], times={}, output_bytes={}
    )
    found = data_checks.check_sample(sample, allowed_share=allowed)
    assert found.status == status
    if quarantined:
        assert f"a run goes on while at most {100 * allowed:g} % of all images fail (budget.max_rows" in found.needed
        assert ("raise budget.max_rows" in found.way_out) == (status == "problem")


def test_share_that_may_fail(tmp_path: Path) -> None:
    assert data_checks.allowed_share(make_context(tmp_path)) == 0.5
    assert data_checks.allowed_share(make_context(tmp_path, "budget.max_rows=2")) == 0.2
