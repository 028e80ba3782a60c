import io
from pathlib import Path

import pytest
import torch

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.checkpoints import Checkpoint, write_checkpoint
from raypipe.data.manifest import Manifest
from raypipe.networks import build_segmenter
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.exports import model as module
from raypipe.pipelines.exports.model import export_model


@pytest.fixture
def context(synthetic: tuple[str, Manifest], tmp_path: Path) -> Context:
    return open_context(load_config("preset: demo", [f"manifest={synthetic[0]}", f"out={tmp_path}/run"]))


@pytest.fixture(scope="module")
def segmenter_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    network = build_segmenter("tiny", head="largefov", num_classes=2)
    checkpoint = Checkpoint(
        task="segmenter",
        backbone="tiny",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config={"section": {"head": "largefov"}},
        weights=network.state_dict(),
    )
    uri = str(tmp_path_factory.mktemp("segmenter"))
    write_checkpoint(checkpoint, uri)
    return uri


def test_the_file_is_compared_with_the_checkpoint_and_written(
    context: Context, segmenter_uri: str, tmp_path: Path
) -> None:
    assert export_model(context, segmenter=Artifact(segmenter_uri, "s"), uri=str(tmp_path / "model.pt2")) < 1e-5
    model = torch.export.load(io.BytesIO((tmp_path / "model.pt2").read_bytes())).module()
    probabilities = model(torch.zeros(1, 3, 50, 70, dtype=torch.uint8))
    assert probabilities.shape == (1, 3, 50, 70)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 50, 70))


def test_nothing_is_written_where_it_differs_or_has_another_ending(
    context: Context, segmenter_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "largest_difference", lambda *_: 0.01)
    with pytest.raises(ValueError, match=r"differ by 0\.01 from the checkpoint's"):
        export_model(context, segmenter=Artifact(segmenter_uri, "s"), uri=str(tmp_path / "model.pt2"))
    with pytest.raises(ValueError, match=r"expected a name that ends in \.pt2"):
        export_model(context, segmenter=Artifact(segmenter_uri, "s"), uri=str(tmp_path / "model.ts"))
    assert not list(tmp_path.glob("model.*"))
