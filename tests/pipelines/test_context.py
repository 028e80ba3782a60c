import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.util.state import list_nodes

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.shards import ShardError
from raypipe.pipelines.context import draw, open_context, with_shards
from raypipe.streams.sink import ShardSink


def test_relative_paths_count_from_the_working_directory(
    synthetic: tuple[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(synthetic[0]).parent
    monkeypatch.chdir(folder)
    training = "sweep.training={checkpoints.classifier: [a, null], of: [{network.weights: b, affinity.epochs: 2}]}"
    config = load_config("preset: demo", ["manifest=manifest.parquet", "out=run", "network.weights=w.pt", training])
    resolved = open_context(config).config
    assert resolved.manifest == str(folder / "manifest.parquet")
    assert resolved.out == str(folder / "run")
    assert resolved.network.weights == str(folder / "w.pt")
    assert resolved.sweep.training == {
        "checkpoints.classifier": (str(folder / "a"), None),
        "of": ({"network.weights": str(folder / "b"), "affinity.epochs": 2},),
    }


def test_seeds_are_needed_for_training_and_for_masks(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    base = [f"manifest={synthetic[0]}", f"out={tmp_path}"]
    context = open_context(load_config("preset: demo", [*base, "splits.masks=[val]"]))
    assert context.seed_rows().num_rows == 24
    assert context.rows(["val"]).num_rows == 6
    assert open_context(load_config("preset: demo", [*base, "splits.masks=null"])).seed_rows().num_rows == 24


def test_rows_are_matched_with_the_shards_that_hold_them(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("image_id", pa.string(), nullable=False)])
    nothing = {name: pa.nulls(2, pa.string()) for name in ("error_stage", "error_reason")}
    sink = ShardSink(str(tmp_path), schema, rows_per_shard=2)
    for ids in (["a", "d"], ["b", "x"]):
        sink.write([pa.table({"image_id": ids, **nothing})], None)
    held, others = with_shards(pa.table({"image_id": ["a", "b", "c", "d"]}), str(tmp_path))
    assert sorted(held["image_id"].to_pylist()) == ["a", "b", "d"]
    assert others["image_id"].to_pylist() == ["c"]
    uris = held["shard_uri"].to_pylist()
    assert uris == sorted(uris)
    assert len(set(uris)) == 2


def test_damaged_shard_is_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "s.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ShardError, match=r"s\.parquet can't be read"):
        with_shards(pa.table({"image_id": ["a"]}), str(tmp_path))


def listening_addresses(port: int) -> set[str]:
    """Local addresses, in the kernel's hexadecimal, at which something listens on the port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}


def test_a_local_rays_dashboard_is_on_loopback_and_asks_for_the_token(local_ray: None) -> None:
    """Whoever may use it, or the ports of Ray itself, can run code."""
    url = os.environ["RAY_API_SERVER_ADDRESS"]
    assert list_nodes(timeout=120)  # asks with the token, and waits for a dashboard that is still starting
    assert listening_addresses(int(url.rsplit(":", 1)[1])) == {"0100007F"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/api/jobs/", timeout=20)  # noqa: S310 - http, as above
    assert refused.value.code == 401


def test_a_local_ray_is_asked_about_itself_beside_another_one(local_ray: None) -> None:
    """Ray Train ends a training whose controller the state API doesn't know."""
    other = "import ray, sys; ray.init(address='local', num_cpus=1, object_store_memory=100 * 2**20); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", other], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"Started a local Ray instance" in line:
                    break
            nodes = list_nodes()
        finally:
            process.communicate()
    assert [node.node_id for node in nodes] == [ray.get_runtime_context().get_node_id()]


def test_draws_depend_on_ids_alone() -> None:
    ids = [f"image {number}" for number in range(50)]
    drawn = [ids[index] for index in draw(ids, 10)]
    assert drawn == [ids[::-1][index] for index in draw(ids[::-1], 10)]
    assert set(drawn) != {ids[index] for index in draw(ids, 10, seed=1)}
    assert sorted(draw(ids, None)) == list(range(50))
