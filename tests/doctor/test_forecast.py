from pathlib import Path

import pyarrow as pa
import pytest

from raypipe import storage
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.rows import Part, Rows
from raypipe.doctor.diagnose import diagnose
from raypipe.doctor.forecast import (
    Sample,
    evenly_spaced_rows,
    forecast,
    forecast_plans,
    random_networks,
    time_sample,
)
from raypipe.doctor.stage_timing import PoolTime, StageTime
from raypipe.outputs.records import read_summary
from raypipe.pipelines.context import Context, open_context, plan_pools
from raypipe.run import Run
from raypipe.synthetic.generate import generate

TWO_CORES = "cluster.autoscaling=['cpus=2,memory=16']"
WITHOUT_GATE = ("walk.affinity=rgb", "refinement.gate=off")
WITH_GPUS = "cluster.autoscaling=['cpus=32,gpus=2,memory=256']"


def make_context(manifest: str, out: Path, *overrides: str) -> Context:
    return open_context(load_config("preset: demo", [f"manifest={manifest}", f"out={out}", *overrides]))


def test_sample_is_spread_over_the_rows_and_always_the_same() -> None:
    rows = Rows.of(pa.table({"number": list(range(100))}))
    assert evenly_spaced_rows(rows, 4)["number"].to_pylist() == [12, 37, 62, 87]
    assert evenly_spaced_rows(rows, 1000)["number"].to_pylist() == list(range(100))


def test_sample_is_spread_over_the_parts_of_a_large_manifest_and_reads_few() -> None:
    def make(number: int) -> Part:
        def read() -> pa.Table:
            read_parts.append(number)
            return table

        table = pa.table({"number": [10 * number + index for index in range(10)]})
        return Part(f"p{number}", 10, read)

    read_parts: list[int] = []
    rows = Rows(tuple(make(number) for number in range(80)), schema=pa.schema([("number", pa.int64())]))
    assert evenly_spaced_rows(rows, 4)["number"].to_pylist() == [150, 350, 550, 750]
    assert sorted(read_parts) == [5, 15, 25, 35, 45, 55, 65, 75]


def made_up_sample(context: Context, seconds: dict[str, float]) -> Sample:
    """A second for each stage, or what is given; 100 bytes a row after a pool."""
    times = {}
    for plan in forecast_plans(context):
        pools, _ = plan_pools(plan, context.machine, context.config)
        times[plan.name] = [
            PoolTime(
                stages=tuple(
                    StageTime(name=name, seconds=seconds.get(name, 1), cpu_seconds=seconds.get(name, 1))
                    for name in (type(stage).__name__ for stage in pool.stages)
                    if name != "LoadCams"
                ),
                start_seconds=5,
                row_bytes=100,
                memory=1,
                gpu_memory=0,
            )
            for pool in pools
        ]
    return Sample(
        num_images=4,
        quarantined={},
        largest=(128, 128),
        image_bytes=1000,
        random=[],
        times=times,
        output_bytes={"seeds": 10, "gate": 1, "masks": 20},
    )


def test_the_slowest_pool_sets_the_pace(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    actors = ["cluster.cpu_actors=3", "cluster.network_actors=2", "cluster.gpus_per_actor=1"]
    context = make_context(synthetic[0], tmp_path, WITH_GPUS, *WITHOUT_GATE, *actors)
    sample = made_up_sample(context, {"ComputeCams": 9, "RefineMasks": 12})
    (masks,) = forecast(context, sample, cores=1000)  # nobody trains an AffinityNet: no seeds
    rows = 24  # of both splits
    # fetching 3 actors; decoding, maps and walk 2; refinement and encoding 3
    assert [(pool.actors, pool.gpus) for pool in masks.pools] == [(3, 0), (2, 1), (3, 0)]
    assert (masks.num_rows, masks.bottleneck) == (rows, "ComputeCams")
    assert masks.hours == pytest.approx((1 + 9 + 1) / 2 * rows / 3600)
    assert masks.cpu_hours == pytest.approx((1 + 1 + 9 + 1 + 12 + 1) * rows / 3600)
    assert masks.gpu_hours == pytest.approx(masks.hours * 2)
    assert (masks.read_bytes, masks.output_bytes) == (1000 * rows, 20 * rows)
    (shared,) = forecast(context, sample, cores=2)
    assert shared.hours == pytest.approx(25 / 2 * rows / 3600)
    assert shared.bottleneck == "RefineMasks (cores that all stages share: 2)"
    assert (masks.start_seconds, shared.start_seconds) == (5, 5 * (3 + 2 + 3) / 2)


def test_only_what_goes_between_pools_weighs_on_the_object_store(
    synthetic: tuple[str, Manifest], tmp_path: Path
) -> None:
    def in_flight(machine: str) -> float:
        context = make_context(synthetic[0], tmp_path, machine, *WITHOUT_GATE, "cluster.cpu_actors=3")
        return forecast(context, made_up_sample(context, {}), cores=2)[0].in_flight_bytes

    assert in_flight(TWO_CORES) == 0
    # Two calls at a time of each actor before and behind both gaps, blocks of 8 rows.
    assert in_flight(WITH_GPUS) == 2 * (3 + 2 + 2 + 3) * 8 * 100


def test_maps_of_seeds_are_not_computed_twice(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    context = make_context(synthetic[0], tmp_path, TWO_CORES)
    seeds, gate, masks = forecast(context, made_up_sample(context, {}), cores=2)
    assert (seeds.loads_maps, gate.loads_maps, masks.loads_maps) == (False, True, True)
    assert (gate.name, gate.num_rows) == ("gate", 24), "all rows of a small set, 64 of others"
    assert "ComputeCams" in [stage.name for stage in seeds.pools[0].time.stages]
    assert "ComputeCams" not in [stage.name for stage in masks.pools[0].time.stages]


def test_a_sample_is_timed_through_both_streams(
    local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path
) -> None:
    context = make_context(synthetic[0], tmp_path, "cams.scales=[1.0]")
    rows = evenly_spaced_rows(context.seed_rows(), 3)
    absent = rows.slice(0, 1).set_column(0, "image_id", [["absent"]]).set_column(1, "image_uri", [["/absent.jpg"]])
    sample = time_sample(context, pa.concat_tables([rows, absent]))
    assert sample.random == ["affinity", "classifier"]
    assert list(sample.quarantined) == ["absent"]
    assert sample.quarantined["absent"].startswith("No such file or directory: '/absent.jpg'")
    assert max(sample.largest) <= 128
    sizes = [len(storage.read_bytes(uri)) for uri in rows["image_uri"].to_pylist()]
    assert sample.image_bytes == pytest.approx(sum(sizes) / 3)
    assert [[stage.name for stage in pool.stages] for pool in sample.times["seeds"]] == [
        ["FetchImages", "DecodeImages", "ComputeCams", "MakeTrimaps"]
    ]
    assert [[stage.name for stage in pool.stages] for pool in sample.times["masks"]] == [
        ["FetchImages", "DecodeImages", "GateWalk", "RefineMasks", "EncodeMasks"]
    ]
    assert all(stage.seconds > 0 for pools in sample.times.values() for pool in pools for stage in pool.stages)
    assert all(size > 0 for size in sample.output_bytes.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rows_of_a_real_run_take_about_as_long_as_the_forecast(local_ray: None, tmp_path: Path) -> None:
    """In steady state: the difference between a long run and a short one, within a factor of 2."""
    images = generate(str(tmp_path / "data"), num_images=24, sizes=(256, 320))
    context = make_context(str(tmp_path / "data/manifest.parquet"), tmp_path)
    given = [
        f"checkpoints.{name}={network.write(str(tmp_path / name)).uri}"
        for name, network in random_networks(context).items()
    ]
    given.append("refinement.gate=off")  # random networks may reject what the forecast has timed
    rows = images.table.to_pylist()
    seconds, num_rows = [], (72, 312)
    for number in num_rows:
        many = [rows[index % len(rows)] | {"image_id": str(index)} for index in range(number)]
        manifest = str(tmp_path / f"data/{number}.parquet")
        write_manifest(Manifest.from_rows(many, images.classes), manifest)
        run = make_context(manifest, tmp_path / str(number), *given)
        summary = read_summary(Run(run).make_masks().uri)
        assert summary is not None
        seconds.append(summary["seconds"])
    masks = next(stream for stream in diagnose(run.config).streams if stream.name == "masks")
    forecast_ms = 3.6e6 * masks.hours / masks.num_rows
    real_ms = 1000 * (seconds[1] - seconds[0]) / (num_rows[1] - num_rows[0])
    assert forecast_ms / 2 < real_ms < 2 * forecast_ms
