import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.artifacts import Artifact
from raypipe.cluster.resources import PoolPlan
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.doctor.forecast import forecast_plans, random_networks
from raypipe.doctor.stage_timing import RandomNetwork, _with_networks, time_pool
from raypipe.pipelines.context import Context, open_context, plan_pools
from raypipe.pipelines.gate import gate_plan
from raypipe.stages.base import Row, Stage, with_error_columns
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.streams.collect import collect
from raypipe.streams.plan import Pool

RESOURCES = PoolPlan(name="pool", kind="finish", min_actors=1, max_actors=1, cpus=1, gpus=0, threads=1, memory=None)


def make_context(manifest: str, out: Path) -> Context:
    given = [f"manifest={manifest}", f"out={out}", "cams.scales=[1.0]", "cluster.autoscaling=['cpus=2,memory=8']"]
    return open_context(load_config("preset: demo", given))


@dataclass(kw_only=True)
class Sleep(Stage):
    """Takes its time for each row, and fails where it is told to."""

    seconds: float
    bad: str = ""

    reads = ("image_id",)
    writes = pa.schema([pa.field("slept", pa.binary())])

    def process(self, row: Row) -> Row:
        if row["image_id"] == self.bad:
            raise ValueError("bad row")
        time.sleep(self.seconds)
        return {"slept": b"x" * 100}


def test_each_stage_has_its_own_time() -> None:
    stages = (Sleep(seconds=0.02, bad="c"), Sleep(seconds=0.06))
    rows = with_error_columns(pa.table({"image_id": ["a", "b", "c"]}))
    after, taken = time_pool(Pool("finish", stages, ("slept",)), RESOURCES, rows, networks={}, rows_per_call=2)
    assert after["error_stage"].to_pylist() == [None, None, "Sleep"]
    assert [stage.name for stage in taken.stages] == ["Sleep", "Sleep"]
    # All three count, as none was in error before.
    short, long = (3 * stage.seconds for stage in taken.stages)
    assert 0.04 <= short < long
    assert long >= 0.12
    assert taken.seconds == pytest.approx(sum(stage.seconds for stage in taken.stages))
    assert taken.cpu_seconds < taken.seconds  # it slept
    assert stages == (Sleep(seconds=0.02, bad="c"), Sleep(seconds=0.06))


def test_rows_weigh_what_the_pool_hands_on() -> None:
    rows = with_error_columns(pa.table({"image_id": ["a", "b"], "image": [b"x" * 10_000] * 2}))
    pool = Pool("finish", (Sleep(seconds=0),), ("image_id", "slept"))
    after, taken = time_pool(pool, RESOURCES, rows, networks={}, rows_per_call=2)
    assert "image" in after.column_names  # the sample goes on with it
    assert 100 <= taken.row_bytes < 300


def test_a_pool_is_timed_on_the_rows_that_are_well(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    context = make_context(synthetic[0], tmp_path)
    rows = with_error_columns(collect(context.rows(None)).slice(0, 3))
    bad = rows.slice(0, 1).set_column(1, "image_uri", [["/absent.jpg"]])
    plan = forecast_plans(context)[0]
    (pool,), resources = plan_pools(plan, context.machine, context.config)
    networks = {"CLASSIFIER": random_networks(context)["classifier"]}
    table = pa.concat_tables([rows, bad])
    after, taken = time_pool(pool, resources.pools[0], table, networks=networks, rows_per_call=2)
    assert after["error_stage"].to_pylist() == [None, None, None, "FetchImages"]
    assert [cam is None for cam in after["cam"].to_pylist()] == [False, False, False, True]
    assert [stage.name for stage in taken.stages] == ["FetchImages", "DecodeImages", "ComputeCams", "MakeTrimaps"]
    assert all(0 < stage.seconds < 5 for stage in taken.stages)
    assert taken.start_seconds > 0
    assert taken.memory > 2**20
    assert taken.gpu_memory == 0


def test_random_networks_stand_in_wherever_a_stage_names_the_checkpoint(
    synthetic: tuple[str, Manifest], tmp_path: Path
) -> None:
    context = make_context(synthetic[0], tmp_path)
    found: dict[str, RandomNetwork] = {name.upper(): network for name, network in random_networks(context).items()}
    plan = gate_plan(context, maps=Artifact("CLASSIFIER", "…"), affinity=Artifact("AFFINITY", "…"))
    stages = [_with_networks(stage, found, str(tmp_path)) for stage in plan.stages]
    walk = next(stage for stage in stages if isinstance(stage, GateWalk))
    judge = next(stage for stage in stages if isinstance(stage, GateMasks))
    assert walk.walk.affinity is not None
    assert Path(walk.walk.affinity.uri).is_relative_to(tmp_path)
    for stage in stages:
        stage.setup("cpu")
    given = _with_networks(judge, {}, str(tmp_path))
    assert given.classifier == judge.classifier
