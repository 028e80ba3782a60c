"""The examples run as they stand, on a small run; the slow one with a Ray of its own."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_runs import write_networks, write_run
from PIL import Image

import raypipe
from raypipe.data.manifest import Manifest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"


def run_here(
    name: str, *arguments: object, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Runs an example in this process; what it prints."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def run_alone(name: str, *arguments: object, folder: Path) -> str:
    """Runs an example as a process; what it prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_photo_to_mask_makes_the_mask_of_the_run(
    small_run: Path,
    synthetic: tuple[str, Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = synthetic[1].table.to_pylist()
    row = next(row for row in rows if len(row["labels"]) > 1)
    arguments = (row["image_uri"].removeprefix("file://"), ",".join(row["labels"]), small_run)
    printed = run_here("photo_to_mask.py", *arguments, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    for name in ("background", *row["labels"]):
        assert f"{name}: " in printed
    # The example reduces no photograph below the default, and takes the walk as it is configured.
    config = ["images.max_side=1024", "refinement.gate=off"]
    made = np.asarray(Image.open(tmp_path / "mask.png"))
    networks = raypipe.open_run(small_run).finished
    assert networks.affinity is not None
    mask = raypipe.segment_image(
        arguments[0],
        row["labels"],
        classifier=networks.maps.uri,
        affinity=networks.affinity.uri,
        config=small_run,
        overrides=config,
        device="cpu",
    )
    assert np.mean(made == mask.array) > 0.99
    assert Image.open(tmp_path / "steps.png").size == (4 * made.shape[1], made.shape[0])


def test_query_masks(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run_here("query_masks.py", small_run, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert printed.startswith("masks: /")
    assert "background" in printed
    assert printed.count("synthetic_000") >= 5
    assert "missed" in printed


def test_query_masks_of_a_bucket(
    bucket: str,
    synthetic: tuple[str, Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_run(bucket, synthetic[0], write_networks(bucket, synthetic[1].classes))
    printed = run_here("query_masks.py", config, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert f"\nmasks: {bucket}/out/masks/" in f"\n{printed}", "Ray may have a line of its own before it"
    assert printed.count("synthetic_000") >= 5


def test_torch_dataset(small_run: Path, tmp_path: Path) -> None:
    printed = run_alone("torch_dataset.py", small_run, folder=tmp_path)
    losses = [float(line.split("loss ")[1].split()[0]) for line in printed.splitlines() if line.startswith("epoch")]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert Image.open(tmp_path / "learned.png").size == (3 * 96, 4 * 96)


@pytest.mark.slow
def test_seeds_from_elsewhere(small_run: Path, tmp_path: Path) -> None:
    printed = run_alone("seeds_from_elsewhere.py", small_run, folder=tmp_path)
    scores = [float(line.split(": ")[1].split()[0]) for line in printed.splitlines() if " mIoU on " in line]
    assert len(scores) == 2
    assert scores[1] > scores[0], "clicks know more than a network of random numbers"
    assert Image.open(tmp_path / "clicks.png").size[0] == 4 * 192
