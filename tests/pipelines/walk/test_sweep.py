"""The sweep on a local Ray, on networks that a run has trained."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import RunConfig, load_config, to_yaml
from raypipe.data.manifest import Manifest
from raypipe.doctor.stage_timing import RandomNetwork
from raypipe.pipelines.affinity import affinity_task
from raypipe.pipelines.classifier import classifier_task
from raypipe.pipelines.context import open_context
from raypipe.pipelines.walk import search as walk_search
from raypipe.pipelines.walk.sweep import result_table
from raypipe.run import Run, open_run
from raypipe.screen.step import plan_steps

SWEEP = [
    "splits.masks=[val]",
    "evaluation.splits=[val]",
    "sweep.alphas=[4,32]",
    "sweep.betas=[4,8]",
    "sweep.steps=[0,16]",
]


def make_config(manifest: str, out: Path, networks: dict[str, str], *overrides: str) -> RunConfig:
    given = [f"checkpoints.{name}={uri}" for name, uri in networks.items()]
    return load_config(
        "preset: demo",
        [
            f"manifest={manifest}",
            f"out={out}",
            "cams.scales=[1.0]",
            "refinement.method=none",
            "segmenter.enabled=false",
            *given,
            *SWEEP,
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def swept(local_ray: None, synthetic: tuple[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished sweep."""
    out = tmp_path_factory.mktemp("sweep")
    context = open_context(load_config("preset: demo", [f"manifest={synthetic[0]}", f"out={out}"]))
    networks = {
        str(task.name): RandomNetwork(task, context.config.training(str(task.name)), synthetic[1].classes)
        .write(str(out / f"{task.name}-network"))
        .uri
        for task in (classifier_task(context), affinity_task(context, classifier=Artifact("", "")))
    }
    run = open_run(make_config(synthetic[0], out, networks))
    assert run.sweep()
    return run


def test_every_setting_is_in_the_table_best_first(swept: Run) -> None:
    result = swept.sweep()
    assert len(result.table) == 2 * 2 * 2 + 1  # the config's own is in the grid, the paper's isn't
    assert set(result.table["note"]) == {"", "config", "paper"}
    assert result.table["score"].is_monotonic_decreasing
    assert result.table["one_walk_mean_iou"].between(0, 1).all()
    assert result.table["mask_mean_iou"].notna().all()  # fewer than finalists
    assert result.chosen == tuple(result.table.iloc[0][["alpha", "beta", "num_steps", "radius"]])
    text = result_table(result)
    at_the_end = result.chosen.alpha in (4, 32)  # or the paper's 16, between them
    assert ("sweep.alphas could go further" in text) == at_the_end
    assert "without truth" in text
    assert "paper" in text


def test_what_nobody_knows_has_no_column(swept: Run) -> None:
    result = swept.sweep()
    assert "mask_mean_iou" in result_table(result)
    unknown = result.table.assign(one_walk_mean_iou=math.nan, mask_mean_iou=math.nan)
    text = result_table(replace(result, table=unknown))
    assert "mean_iou" not in text
    assert text.split()[0] == "alpha"


def test_the_two_scorings_have_names_of_their_own(swept: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="raypipe.screen.step")
    plan_steps(())
    open_run(swept.config).sweep()
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert [name for name in said if "settings" in name] == ["all settings, coarsely", "the best settings, in full"]


def test_the_files(swept: Run) -> None:
    folder = swept.sweep().folder
    table = pd.read_parquet(io.BytesIO(storage.read_bytes(storage.join(folder, "table.parquet"))))
    pd.testing.assert_frame_equal(table, swept.sweep().table.reset_index(drop=True))
    assert len(pd.read_csv(io.BytesIO(storage.read_bytes(storage.join(folder, "table.csv"))))) == len(table)
    assert json.loads(storage.read_bytes(storage.join(folder, "choice.json")))["num_images"] == swept.sweep().num_images
    for name in ("alpha", "beta_and_steps"):
        assert b"<svg" in storage.read_bytes(storage.join(folder, f"{name}.svg"))


def test_masks_of_the_best_config_have_the_iou_of_the_table(swept: Run) -> None:
    best = open_run(load_config(storage.read_bytes(swept.sweep().best_config).decode()))
    assert best.config.walk.alpha == swept.sweep().chosen.alpha
    (walked,) = [score for score in best.evaluate()[1] if score.stage == "walk"]
    table = swept.sweep().table
    row = table[(table[list(swept.sweep().chosen._fields)] == pd.Series(swept.sweep().chosen._asdict())).all(axis=1)]
    assert walked.split == "val"
    assert row["mask_mean_iou"].item() == pytest.approx(walked.mean_iou, abs=1e-9)


def test_a_second_sweep_computes_nothing(swept: Run) -> None:
    written = {file: file.stat().st_mtime_ns for file in Path(swept.config.out, "settings").rglob("*.parquet")}
    assert written
    again = open_run(swept.config)
    pd.testing.assert_frame_equal(again.sweep().table, swept.sweep().table)
    assert written == {file: file.stat().st_mtime_ns for file in written}


def test_a_search_goes_beyond_the_grid_and_on_where_it_was(swept: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_search, "NUM_TRIALS", 3)
    overrides = ["sweep.search=optuna", "sweep.num_labelled=5", "sweep.num_images=6"]
    config = load_config(to_yaml(swept.config), overrides)
    result = open_run(config).sweep()
    assert result.search is not None
    assert len(result.search.results) == len(result.search.trials) == 3
    assert result.search.trials["status"].iloc[0] == "done"
    assert set(result.table["note"]) >= {"config", "paper"}
    assert (
        result.table.loc[result.choice.index, "mask_mean_iou"]
        == result.table["mask_mean_iou"].dropna().loc[result.choice.index]
    )
    assert "3 trials of beta and radius" in result_table(result)
    best = load_config(storage.read_bytes(result.best_config).decode())
    assert (best.walk.beta, best.walk.radius) == (result.chosen.beta, result.chosen.radius)
    written = {file: file.stat().st_mtime_ns for file in Path(result.folder, "trials").iterdir()}
    again = open_run(config).sweep()
    pd.testing.assert_frame_equal(again.table, result.table)
    assert again.search is not None
    pd.testing.assert_frame_equal(again.search.trials, result.search.trials)
    assert written == {file: file.stat().st_mtime_ns for file in written}


def test_true_masks_may_help_to_choose(swept: Run) -> None:
    config = load_config(storage.read_bytes(swept.sweep().best_config).decode(), ["sweep.num_labelled=5"])
    result = open_run(config).sweep()
    assert result.num_labelled == 5
    assert result.choice.low <= result.choice.high
    assert "5 true masks" in result_table(result)
    too_many = load_config(storage.read_bytes(swept.sweep().best_config).decode(), ["sweep.num_labelled=500"])
    with pytest.raises(ValueError, match="num_labelled is 500"):
        open_run(too_many).sweep()
