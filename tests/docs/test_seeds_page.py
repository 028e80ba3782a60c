"""The two providers of seeds.md do what the page says, on synthetic images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_pages import PAGES, blocks
from PIL import Image
from scribbles import write_scribbles
from typer.testing import CliRunner

from raypipe import storage
from raypipe.cli import app
from raypipe.data.given_seeds import decode_seed
from raypipe.data.manifest import Manifest
from raypipe.pipelines.seed_provider import find_provider

(PAGE,) = (page for page in PAGES if page.name == "seeds.md")
SCRIBBLES, CONTRAST, PSA = blocks(PAGE, "python")


def test_scribbles(synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri, manifest = synthetic
    write_scribbles(tmp_path / "scribbles.json", uri, folder=Path("/"))
    exec(SCRIBBLES, {})  # noqa: S102 - the page's
    files = sorted(Path("scribbles").glob("*.npz"))
    assert len(files) == 24
    for path in files:
        with np.load(path) as file:
            (row,) = [row for row in manifest.table.to_pylist() if row["image_id"] == str(file["image_id"])]
            truth = Image.open(row["mask_uri"].removeprefix("file://")).resize((128, 128), Image.Resampling.NEAREST)
            for name, drawn in zip(file["classes"], file["maps"], strict=True):
                here = np.asarray(truth) == manifest.classes.index(name) + 1
                assert here[drawn == 1].mean() > 0.9, "a stroke lies in its object"
                assert np.isnan(drawn).mean() > 0.5
                assert (drawn == 0).any(), "what is drawn of others isn't of it"
    said = CliRunner().invoke(app, ["import", "seeds", "scribbles/", uri, "seeds/"], catch_exceptions=False).stdout
    assert said.startswith("scribbles/: maps of 24 images\nseeds: seeds/"), said


def test_contrast(synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("contrast_of_the_page.py").write_text(CONTRAST)
    provider = find_provider("contrast_of_the_page:Contrast")
    inside, outside = [], []
    for row in synthetic[1].table.to_pylist():
        given = provider.stage.process(row | {"image": storage.read_bytes(row["image_uri"])})
        maps = decode_seed(given)
        assert given["seed_classes"] == (row["labels"] if len(row["labels"]) == 1 else [])
        if len(maps):
            truth = Image.open(row["mask_uri"].removeprefix("file://")).resize((32, 32), Image.Resampling.NEAREST)
            here = np.asarray(truth) > 0
            inside.append(maps[0][here].mean())
            outside.append(maps[0][~here].mean())
    assert len(inside) >= 3
    assert np.mean(inside) > 1.2 * np.mean(outside)


def test_psas_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cams").mkdir()
    maps: Any = {2: np.full((3, 4), 0.5, np.float32), 0: np.ones((3, 4), np.float32)}
    np.save(tmp_path / "cams/a.npy", maps)
    monkeypatch.chdir(tmp_path)
    exec(PSA, {})  # noqa: S102 - the page's
    with np.load("cams/a.npz") as file:
        assert file["classes"].tolist() == ["bird", "aeroplane"]
        np.testing.assert_array_equal(file["maps"], [maps[2], maps[0]])
