"""`raypipe doctor` on a real Ray and a real S3 server, through the command line."""

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
from typer.testing import CliRunner

from raypipe import storage
from raypipe.cli import app
from raypipe.data.manifest import Manifest

DEMO = Path(__file__).resolve().parent.parent.parent / "raypipe/recipes/demo.yaml"


def doctor(manifest: str, out: str, *args: str) -> tuple[int, str]:
    command = ["doctor", str(DEMO), f"manifest={manifest}", f"out={out}", *args]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    return result.exit_code, result.stdout


def statuses(text: str) -> dict[str, str]:
    return {finding["check"]: finding["status"] for finding in json.loads(text)["findings"]}


def test_all_is_well_and_nothing_is_left_behind(local_ray: None, synthetic: tuple[str, Manifest], bucket: str) -> None:
    code, text = doctor(synthetic[0], storage.join(bucket, "run"), "--sample", "2", "cams.scales=[1.0]")
    assert code == 0, text
    lines = text.splitlines()
    for check in ("manifest", "networks", "out", "images", "nodes", "versions", "resources", "sample", "memory"):
        assert any(line.split()[:2] == ["ok", check] for line in lines), text
    assert "Forecast from 2 images" in text
    assert "random weights" in text
    assert "class activation maps come from the seeds" in text
    for stage in (
        "FetchImages",
        "DecodeImages",
        "ComputeCams",
        "MakeTrimaps",
        "GateWalk",
        "RefineMasks",
        "EncodeMasks",
    ):
        assert any(line.split()[:1] == [stage] for line in lines), text
    assert storage.list_files(bucket) == []


def test_a_bucket_that_is_not_there(local_ray: None, synthetic: tuple[str, Manifest]) -> None:
    code, text = doctor(synthetic[0], "s3://no-such-bucket-of-ours/run", "--json")
    assert code == 1
    assert [check for check, status in statuses(text).items() if status == "problem"] == ["out"]
    assert not json.loads(text)["healthy"]
    assert json.loads(text)["sample"] is None


def test_storage_that_only_the_driver_reaches(
    local_ray: None,
    synthetic: tuple[str, Manifest],
    serve: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with credentials that only the driver has: Ray's workers look at another server."""
    url = serve(str(Path(sys.executable).parent / "moto_server"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
        code, text = doctor(synthetic[0], f"s3://{name}/run", "--json")
        assert storage.list_files(f"s3://{name}") == []
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
    assert code == 1
    found = next(finding for finding in json.loads(text)["findings"] if finding["check"] == "out")
    assert found["status"] == "problem"
    assert "the driver" not in found["found"]
    assert "credentials on every node" in found["way_out"]


def test_a_cluster_that_is_too_small(local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    code, text = doctor(synthetic[0], str(tmp_path / "out"), "cluster.network_actors=9", "cluster.gpus_per_actor=1")
    assert code == 1
    assert "problem  resources" in text
    assert "masks, scores: cluster.gpus_per_actor=1 needs a node with 1 GPUs" in text
    assert "way out: leave cluster.gpus_per_actor null" in text
    assert "no forecast" in text
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    code, text = doctor(str(tmp_path / "absent.parquet"), str(tmp_path / "out"))
    assert code == 1
    assert text.startswith("problem  manifest  FileNotFoundError")


def test_a_config_that_cannot_be_used_is_refused_as_everywhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'beta'"):
        doctor("m.parquet", str(tmp_path / "out"), "walk.bta=3")
