from pathlib import Path

import pytest
import torch
from torch import nn

from raypipe.networks.onnx_saliency import OnnxSaliency

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def export(network: nn.Module, path: Path) -> bytes:
    torch.onnx.export(network, (torch.zeros(1, 3, 32, 48),), path, input_names=["x"], dynamo=False)
    return path.read_bytes()


class Redness(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :1].sigmoid(), x  # what follows the first output doesn't matter


def test_a_models_first_output_is_the_saliency(tmp_path: Path) -> None:
    model = OnnxSaliency(export(Redness(), tmp_path / "a.onnx"), source="a")
    x = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(model(x), x[:, :1].sigmoid())
    assert model.side == 32


def test_logits_are_refused(tmp_path: Path) -> None:
    model = OnnxSaliency(export(nn.Conv2d(3, 1, 1), tmp_path / "a.onnx"), source="a")
    with pytest.raises(ValueError, match="export the model with its sigmoid"):
        model(10 * torch.randn(1, 3, 32, 48))


def test_damaged_models_are_refused() -> None:
    with pytest.raises(ValueError, match="can't be read as an ONNX model"):
        OnnxSaliency(b"no model", source="a")
