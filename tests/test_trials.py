"""Outer sweeps on a local Ray: real trainings, as small as they can be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray import tune

from raypipe.cluster.machines import parse_machine
from raypipe.config import RunConfig, load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.pipelines.context import open_context
from raypipe.trials import TrialsResult, run_trials, sharing, trial_row, trials_at_once, trials_table

OVERRIDES = [
    "classifier.epochs=1",
    "classifier.crop_size=96",
    "classifier.long_side=[96,128]",
    "optimizer.warmup_steps=0",
    "cams.scales=[1.0]",
    "walk.affinity=rgb",
    "sweep.alphas=[4]",
    "sweep.betas=[4]",
    "sweep.steps=[4]",
    "cluster.train_workers=1",
    "cluster.network_actors=1",
]
LEARNING_RATES = "sweep.training={classifier.lr: [0.003, 0.00001]}"


def make_config(manifest: str, out: Path, *overrides: str) -> RunConfig:
    return load_config("preset: demo", [f"manifest={manifest}", f"out={out}", *OVERRIDES, *overrides])


def modified(folder: str) -> dict[Path, int]:
    """What was computed, and when."""
    made = [path for pattern in ("*.safetensors", "*.pt", "*.parquet") for path in Path(folder).rglob(pattern)]
    return {path: path.stat().st_mtime_ns for path in made if "trials" not in path.parts}


@pytest.fixture(scope="module")
def finished(
    local_ray: None, synthetic: tuple[str, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, TrialsResult]:
    """Two trials."""
    config = make_config(synthetic[0], tmp_path_factory.mktemp("outer"), LEARNING_RATES)
    return config, run_trials(config)


@pytest.mark.slow
def test_trials_are_ranked_by_mean_iou(finished: tuple[RunConfig, TrialsResult]) -> None:
    config, result = finished
    table = result.table
    assert set(table["classifier.lr"]) == {0.003, 0.00001}
    assert table["score"].is_monotonic_decreasing
    assert table["score"].tolist() == table["mean_iou"].tolist()
    assert table["score"].between(0, 1).all()
    assert set(table["status"]) == {"done"}
    assert len(list(Path(config.out, "classifier").iterdir())) == 2
    pd.testing.assert_frame_equal(pd.read_parquet(Path(result.folder, "table.parquet")), table)
    assert "classifier.lr" in trials_table(result)


@pytest.mark.slow
def test_best_config_has_the_best_trials_values_and_setting(finished: tuple[RunConfig, TrialsResult]) -> None:
    _, result = finished
    best, row = load_config(Path(result.best_config).read_text()), result.table.iloc[0]
    assert best.classifier.lr == row["classifier.lr"]
    assert (best.walk.alpha, best.walk.beta, best.walk.num_steps) == (row["alpha"], row["beta"], row["num_steps"])
    assert not best.sweep.training


@pytest.mark.slow
def test_same_command_again_computes_nothing(finished: tuple[RunConfig, TrialsResult]) -> None:
    config, before = finished
    files = modified(config.out)
    again = run_trials(config)
    pd.testing.assert_frame_equal(again.table, before.table)  # the seconds, too
    assert files
    assert modified(config.out) == files


@pytest.mark.parametrize(("num_labelled", "needed"), [(0, 1), (3, 3)])
def test_networks_are_not_compared_without_truth(
    synthetic: tuple[str, Manifest], tmp_path: Path, num_labelled: int, needed: int
) -> None:
    rows = [row | {"mask_uri": None} for row in synthetic[1].table.to_pylist()]
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), str(tmp_path / "manifest.parquet"))
    config = make_config(
        str(tmp_path / "manifest.parquet"), tmp_path, LEARNING_RATES, f"sweep.num_labelled={num_labelled}"
    )
    with pytest.raises(ValueError, match=f"by true masks and needs {needed}, but 0 of the 24 scored"):
        run_trials(config)


@pytest.mark.parametrize(
    ("machine", "cluster", "number", "at_once", "part"),
    [
        ("cpus=2,memory=24", [], 4, 2, "1 x (1 CPUs, 0 GPUs, 8 GiB for actors)"),
        ("cpus=64,gpus=8,memory=512", [], 4, 4, "1 x (16 CPUs, 2 GPUs, 90 GiB for actors)"),
        ("cpus=64,gpus=8,memory=512", [], 20, 8, "1 x (8 CPUs, 1 GPUs, 45 GiB for actors)"),
        ("nodes=16,cpus=64,gpus=8,memory=512", [], 4, 4, "4 x (64 CPUs, 8 GPUs, 358 GiB for actors)"),
        ("cpus=64,gpus=8,memory=512", ["cluster.train_workers=4"], 20, 2, "1 x (32 CPUs, 4 GPUs, 179 GiB for actors)"),
        ("cpus=1,memory=24", [], 4, 1, "1 x (1 CPUs, 0 GPUs, 17 GiB for actors)"),
    ],
)
def test_as_many_trials_at_once_as_the_cluster_holds(
    synthetic: tuple[str, Manifest],
    tmp_path: Path,
    machine: str,
    cluster: list[str],
    number: int,
    at_once: int,
    part: str,
) -> None:
    """What a user sets for a training holds for each trial: fewer of them fit."""
    free = ["cluster.train_workers=null", "cluster.network_actors=null"]
    context = open_context(make_config(synthetic[0], tmp_path, *free, *cluster))
    found, each = trials_at_once(replace(context, part=parse_machine(machine)), number)
    assert (found, str(each)) == (at_once, part)


def test_trials_that_share_a_classifier_are_known_beforehand(
    synthetic: tuple[str, Manifest], tmp_path: Path, classifier_uri: str
) -> None:
    def groups(*options: str) -> list[list[dict[str, Any]]]:
        return sharing(open_context(make_config(synthetic[0], tmp_path, *options)))

    assert groups(LEARNING_RATES) == [], "each has its own"
    both = "sweep.training={classifier.lr: [1, 2], affinity.lr: [3, 4]}"
    pairs = [[{"classifier.lr": lr, "affinity.lr": other} for other in (3, 4)] for lr in (1, 2)]
    assert groups(both) == pairs
    assert groups("sweep.training={trimaps.alpha_low: [3, 4]}") == [
        [{"trimaps.alpha_low": 3}, {"trimaps.alpha_low": 4}]
    ]
    affinities = ("learned", "frozen", "rgb")
    assert groups(f"sweep.training={{walk.affinity: [{','.join(affinities)}]}}", "affinity.start=classifier") == [
        [{"walk.affinity": affinity} for affinity in affinities]
    ]
    assert groups(both, f"checkpoints.classifier={classifier_uri}") == [], "it is there"


@pytest.mark.parametrize(
    ("metrics", "error", "status"),
    [
        ({"score": 0.5}, None, "done"),
        (
            {},
            RuntimeError("ray::run_trial\nTrainingDiverged: the loss is nan"),
            "failed: TrainingDiverged: the loss is nan",
        ),
    ],
)
def test_row_says_what_became_of_a_trial(metrics: dict[str, Any], error: Exception | None, status: str) -> None:
    changes = {"cams.scales": [1.0, 0.5], "network": {"classifier.epochs": 3}}
    result = tune.Result(checkpoint=None, metrics=metrics | {"config": changes}, error=error, path=None)
    row = trial_row(result)
    assert row["status"] == status
    assert (row["cams.scales"], row["classifier.epochs"]) == ("[1.0, 0.5]", 3)
    assert "network" not in row
