import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision

from raypipe.networks import build_classifier, load_weights
from raypipe.networks.registry import load_torchvision_weights
from raypipe.storage import read_bytes

FILE = "resnet18-f37072fd.pth"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_offline_names_the_file_to_bring_and_its_place(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="Bring the file") as error:
        load_torchvision_weights("torchvision://resnet18/IMAGENET1K_V1")
    message = str(error.value)
    assert f"https://download.pytorch.org/models/{FILE}" in message
    assert str(hub / FILE) in message
    assert "no route to host" in message
    assert capsys.readouterr().out == "", "torch.hub's words are no results of a command"


def test_reads_the_cache(hub: Path) -> None:
    weights = torchvision.models.resnet18().state_dict()
    hub.mkdir()
    torch.save(weights, hub / FILE)
    network = build_classifier("resnet18", num_classes=2)
    assert load_weights(network, "torchvision://resnet18/IMAGENET1K_V1", read=read_bytes) == ("fc8.weight",)
    torch.testing.assert_close(network.backbone.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("torchvision://resnet5/IMAGENET1K_V1", "did you mean 'resnet50'"),
        ("torchvision://resnet50/V3", "torchvision://resnet50/IMAGENET1K_V2"),
        ("torchvision://resnet50", "has no weights ''"),
    ],
)
def test_unknown_names(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_torchvision_weights(uri)
