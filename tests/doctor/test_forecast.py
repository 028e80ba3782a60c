from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.config import load_config
from raypipe.data.manifest import Manifest, write_manifest
from raypipe.doctor.diagnose import diagnose
from raypipe.doctor.forecast import (
    Sample,
    evenly_spaced_rows,
    forecast,
    makes_seeds,
    spread_actors,
    stream_steps,
    trains,
    trains_classifier,
    uses_classifier,
)
from raypipe.doctor.stage_timing import RandomNetwork, StageTime, time_stage
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.train import affinity_task, classifier_task
from raypipe.run import Run
from raypipe.stages.base import with_error_columns
from raypipe.stages.cams import ComputeCams
from raypipe.stages.decode import DecodeImages
from raypipe.stages.encode import EncodeMasks
from raypipe.streams.plan import Step
from raypipe.streams.records import read_summary
from raypipe.synthetic.generate import generate

GIVEN_MAPS = ["checkpoints.cams=folder", "refinement.gate=off"]


def make_context(manifest: str, out: Path, *overrides: str) -> Context:
    return open_context(load_config("preset: demo", [f"manifest={manifest}", f"out={out}", *overrides]))


def test_sample_is_spread_over_the_table_and_always_the_same() -> None:
    rows = pa.table({"number": list(range(100))})
    assert evenly_spaced_rows(rows, 4)["number"].to_pylist() == [12, 37, 62, 87]
    assert evenly_spaced_rows(rows, 1000)["number"].to_pylist() == list(range(100))


def test_growing_pools_share_what_is_free_in_proportion_to_their_time() -> None:
    steps = [
        Step(stage=DecodeImages, max_actors=100),
        Step(stage=ComputeCams, num_actors=2, num_cpus=4),
        Step(stage=EncodeMasks, max_actors=20),
    ]
    # Two growing actors, two networks of four CPUs and the writer hold 11 of 51.
    assert spread_actors(steps, [1, 9, 3], cpus=51) == [11, 2, 20]
    assert spread_actors(steps, [1, 9, 1], cpus=51) == [21, 2, 20]
    assert spread_actors(steps, [1, 9, 3], cpus=5) == [1, 2, 1]


def test_what_a_run_makes_depends_on_what_is_given(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    for overrides, seeds, training in (
        ([], True, True),
        (["walk.affinity=rgb"], False, True),
        (["walk.affinity=rgb", "checkpoints.classifier=c"], False, False),
        (["checkpoints.affinity=a", "checkpoints.classifier=c"], False, False),
        (["checkpoints.classifier=c"], True, True),
        ([*GIVEN_MAPS, "walk.affinity=rgb"], False, False),
        ([*GIVEN_MAPS, "checkpoints.affinity=a"], False, False),
    ):
        context = make_context(synthetic[0], tmp_path, *overrides)
        assert (makes_seeds(context), trains(context)) == (seeds, training)


@pytest.mark.parametrize(
    ("overrides", "used", "trained"),
    [
        ([], True, True),
        (["checkpoints.classifier=c"], True, False),
        (["affinity.weights=null"], True, True),
        ([*GIVEN_MAPS, "affinity.weights=null"], False, False),
        ([*GIVEN_MAPS, "affinity.weights=classifier"], True, True),
        ([*GIVEN_MAPS, "affinity.weights=classifier", "checkpoints.classifier=c"], True, False),
        ([*GIVEN_MAPS, "affinity.weights=classifier", "checkpoints.affinity=a"], False, False),
    ],
)
def test_given_maps_take_the_place_of_the_classifier(
    overrides: list[str], synthetic: tuple[str, Manifest], tmp_path: Path, *, used: bool, trained: bool
) -> None:
    context = make_context(synthetic[0], tmp_path, *overrides)
    assert (uses_classifier(context), trains_classifier(context)) == (used, trained)


def made_up_sample(context: Context, seconds: dict[str, float]) -> Sample:
    stages = {step.stage.__name__ for steps in stream_steps(context, reuse_cams=False).values() for step in steps}
    return Sample(
        num_images=4,
        quarantined={},
        largest=(128, 128),
        image_bytes=1000,
        random=[],
        times={
            name: StageTime(
                seconds=seconds.get(name, 1),
                cpu_seconds=seconds.get(name, 1),
                start_seconds=5,
                row_bytes=100,
                memory=1,
                gpu_memory=0,
            )
            for name in stages
        },
        output_bytes={"seeds": 10, "masks": 20},
    )


def test_the_slowest_pool_sets_the_pace(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    context = make_context(
        synthetic[0], tmp_path, "cluster.cpu_actors=3", "walk.affinity=rgb", "cluster.gpus_per_actor=1"
    )
    sample = made_up_sample(context, {"ComputeCams": 9, "RefineMasks": 12})
    seeds, masks = forecast(context, sample, cpus=32, cores=1000)
    rows = 24  # of both splits, two network actors
    assert (seeds.bottleneck, seeds.num_rows) == ("ComputeCams", 18 + 6)
    assert seeds.hours == pytest.approx(9 / 2 * rows / 3600)
    assert masks.bottleneck == "ComputeCams"
    assert masks.cpu_hours == pytest.approx((1 + 9 + 1 + 12 + 1) * rows / 3600)
    assert masks.gpu_hours == pytest.approx(masks.hours * 4)  # maps and walk, two actors each
    assert (masks.read_bytes, masks.output_bytes) == (1000 * rows, 20 * rows)
    shared = forecast(context, sample, cpus=32, cores=2)[1]
    assert shared.hours == pytest.approx(24 / 2 * rows / 3600)
    assert (masks.start_seconds, shared.start_seconds) == (5, 5 * (3 + 2 + 2 + 3 + 3) / 2)
    assert shared.bottleneck.startswith("RefineMasks (cores")


def test_maps_of_seeds_are_not_computed_twice(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    context = make_context(synthetic[0], tmp_path)
    masks = forecast(context, made_up_sample(context, {}), cpus=16, cores=2)[1]
    assert [stage.name for stage in masks.stages if stage.time is None] == ["LoadCams"]


def test_a_stage_is_timed_on_the_rows_that_are_well(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    context = make_context(synthetic[0], tmp_path)
    rows = with_error_columns(context.rows(None).slice(0, 3))
    bad = rows.slice(0, 1).set_column(1, "image_uri", [["/absent.jpg"]])
    decode, cams, _ = stream_steps(context, reuse_cams=False)["seeds"]
    decoded, time = time_stage(decode.stage, decode.args, pa.concat_tables([rows, bad]), batch_size=2, network=None)
    assert decoded["error_stage"].to_pylist() == [None, None, None, "DecodeImages"]
    assert 0 < time.seconds < 1
    assert time.start_seconds > 0
    assert time.memory > 2**20
    assert time.gpu_memory == 0
    random = RandomNetwork(classifier_task(context), context.classes)
    mapped, time = time_stage(cams.stage, cams.args, decoded, batch_size=2, network=random)
    assert time.row_bytes * 4 == mapped.nbytes
    assert [cam is None for cam in mapped["cam"].to_pylist()] == [False, False, False, True]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rows_of_a_real_run_take_about_as_long_as_the_forecast(local_ray: None, tmp_path: Path) -> None:
    """In steady state: the difference between a long run and a short one, within a factor of 2."""
    images = generate(str(tmp_path / "data"), num_images=24, sizes=(256, 320))
    context = make_context(str(tmp_path / "data/manifest.parquet"), tmp_path)
    given = [
        f"checkpoints.{task.name}={RandomNetwork(task, context.classes).write(str(tmp_path / task.name))}"
        for task in (classifier_task(context), affinity_task(context, classifier=""))
    ]
    given.append("refinement.gate=off")  # random networks may reject what the forecast has timed
    rows = images.table.to_pylist()
    seconds, num_rows = [], (72, 312)
    for number in num_rows:
        many = [rows[index % len(rows)] | {"image_id": str(index)} for index in range(number)]
        manifest = str(tmp_path / f"data/{number}.parquet")
        write_manifest(Manifest.from_rows(many, images.classes), manifest)
        config = make_context(manifest, tmp_path / str(number), *given).config
        summary = read_summary(Run(config).masks.uri)
        assert summary is not None
        seconds.append(summary["seconds"])
    masks = next(stream for stream in diagnose(config).streams if stream.name == "masks")
    forecast_ms = 3.6e6 * masks.hours / masks.num_rows
    real_ms = 1000 * (seconds[1] - seconds[0]) / (num_rows[1] - num_rows[0])
    assert forecast_ms / 2 < real_ms < 2 * forecast_ms
