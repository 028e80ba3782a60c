"""Saliency on a local Ray: maps predicted for a training that asks for them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from saliency_models import onnx_model

from raypipe.config import RunConfig, load_config
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.pages.saliency_samples import saliency_samples
from raypipe.pipelines.context import open_context
from raypipe.pipelines.saliency_maps import lacks_saliency
from raypipe.run import open_run
from raypipe.stages.networks import load_classifier
from raypipe.training.trainer import read_metrics


def make_config(manifest: str, out: Path, *overrides: str) -> RunConfig:
    given = [
        f"manifest={manifest}",
        f"out={out}",
        "classifier.epochs=1",
        "classifier.crop_size=64",
        "classifier.long_side=[64,96]",
        "classifier.saliency=eps++",
        "cluster.train_workers=1",
        "cluster.network_actors=1",
    ]
    return load_config("preset: demo", [*given, *overrides])


@pytest.fixture
def partly(synthetic: tuple[str, Manifest], tmp_path: Path) -> tuple[str, str]:
    """Manifest in which one training image has a saliency map, and that map."""
    (tmp_path / "given.png").write_bytes(encode_png(np.full((50, 50), 255, np.uint8)))
    rows = synthetic[1].table.to_pylist()
    first = next(row for row in rows if row["split"] == "train")
    first["saliency_uri"] = str(tmp_path / "given.png")
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), str(tmp_path / "manifest.parquet"))
    return str(tmp_path / "manifest.parquet"), first["image_id"]


def test_without_maps_training_says_what_to_do(partly: tuple[str, str], tmp_path: Path) -> None:
    context = open_context(make_config(partly[0], tmp_path))
    with pytest.raises(ValueError, match=r"17 of 18 have no saliency_uri .* let a network predict them"):
        lacks_saliency(context)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a training: on a busy machine its processes start slowly
def test_given_maps_are_trained_on(local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    rows = synthetic[1].table.to_pylist()
    for row in rows:
        pixels = np.asarray(Image.open(row["image_uri"]).convert("L"))
        row["saliency_uri"] = str(tmp_path / f"{row['image_id']}.png")
        Path(row["saliency_uri"]).write_bytes(encode_png(pixels))
    trained_on = [row for row in rows if row["split"] == "train"]
    Path(trained_on[0]["saliency_uri"]).write_bytes(encode_png(np.full((50, 50), 255, np.uint8)))
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), str(tmp_path / "manifest.parquet"))
    run = open_run(make_config(str(tmp_path / "manifest.parquet"), tmp_path / "out", "classifier.epochs=2"))
    classifier = run.train_classifier()
    epochs = read_metrics(str(Path(classifier.uri).parent))
    shares = [metrics["dropped_share"] for metrics in epochs]
    assert shares[0] == 0  # it starts as EPS
    assert 0 < shares[1] < 1
    for metrics in epochs:
        assert metrics["loss"] == pytest.approx(metrics["loss_classification"] + metrics["loss_saliency"])
        assert metrics["num_unreadable"] <= 2  # one map has another shape, and its image may come twice
    assert load_classifier(classifier.uri, device="cpu").fc8.out_channels == 7

    samples = saliency_samples(run.context, classifier=classifier, num_samples=6)
    assert 5 <= len(samples) <= 6  # not the one whose map has another shape
    for sample in samples:
        assert sample.inconsistent_region is not None
        shapes = {sample.saliency.shape, sample.foreground.shape, sample.inconsistent_region.shape}
        assert shapes == {sample.pixels.shape[:2]}
        assert 0 <= sample.foreground.min() <= sample.foreground.max() <= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_missing_maps_are_predicted_and_trained_on(local_ray: None, partly: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "redness.onnx").write_bytes(onnx_model())
    predicted = (f"saliency.weights={tmp_path / 'redness.onnx'}", "saliency.preprocessing=[0, 25]")
    run = open_run(make_config(partly[0], tmp_path / "out", *predicted))
    (epoch,) = read_metrics(str(Path(run.train_classifier().uri).parent))
    assert epoch["num_unreadable"] <= 2  # the given map has another shape, and its image may come twice
    maps = run.predict_saliency().uri
    written = {row["image_id"]: row for row in read_manifest(maps + "/manifest").table.to_pylist()}
    assert len(list(Path(maps, "png").iterdir())) == 17
    for image_id, row in written.items():
        if row["split"] == "val":
            assert row["saliency_uri"] is None
        elif image_id != partly[1]:
            saliency = decode_mask(Path(row["saliency_uri"]).read_bytes())
            red, _, blue = np.asarray(Image.open(row["image_uri"]).convert("RGB"), np.float32).transpose(2, 0, 1)
            assert saliency.shape == red.shape
            assert saliency[red > blue].mean() > saliency[red <= blue].mean(), "the network takes red for salient"
    assert written[partly[1]]["saliency_uri"].endswith("given.png")
