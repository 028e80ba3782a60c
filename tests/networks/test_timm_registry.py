from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save
from torch import Tensor

from raypipe.networks import build_classifier, load_weights
from raypipe.networks.preprocessing import IMAGENET, TENSORFLOW
from raypipe.networks.timm_registry import is_cached, load_timm_weights
from raypipe.storage import list_files, read_bytes
from raypipe.training.staging import find_weights, stage_weights

URI = "timm://test_vit.r160_in1k"
NAME = "timm/test_vit.r160_in1k"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub with the weights of one network; the list has what it was asked for."""
    asked: list[str] = []
    published = timm.create_model("test_vit").state_dict()

    def download(repository: str, *args: object, **kwargs: object) -> dict[str, Tensor]:
        asked.append(repository)
        return published

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
    return asked


def test_weights_are_downloaded_once_and_staged_as_safetensors(hub: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert find_weights(URI, out=out) is None
    network = build_classifier(NAME, num_classes=2)
    staged = stage_weights(URI, out=out, preprocessing=network.preprocessing)
    assert stage_weights(URI, out=out) == find_weights(URI, out=out) == staged
    assert hub == ["timm/test_vit.r160_in1k"]
    assert list_files(out) == [staged]
    assert load_weights(network, staged, read=read_bytes) == ("fc8.weight",)
    straight = load_timm_weights(URI)
    assert torch.equal(network.backbone.state_dict()["model.pos_embed"], straight["pos_embed"])


def test_weights_of_another_preprocessing_are_refused(hub: list[str], tmp_path: Path) -> None:
    network = build_classifier(NAME, num_classes=2)
    halves = network.preprocessing.mean == (0.5, 0.5, 0.5)
    same, other = (TENSORFLOW, IMAGENET) if halves else (IMAGENET, TENSORFLOW)
    assert load_timm_weights(URI, preprocessing=same)  # written at another scale
    with pytest.raises(ValueError, match=r"was trained with mean .* the network would be given mean"):
        stage_weights(URI, out=str(tmp_path), preprocessing=other)
    assert list_files(str(tmp_path)) == []


@pytest.mark.parametrize("uri", [URI, "hf-hub://timm/test_vit.r160_in1k"])
def test_offline_says_what_to_bring(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise LocalEntryNotFoundError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError, match=r"can't be downloaded \(no route to host\)\. Bring model\.safetensors"):
        load_timm_weights(uri)


def test_whether_they_are_cached_is_the_hubs_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look(repository: str, name: str, *, revision: str | None) -> str | None:
        asked.append((repository, revision))
        return "/cache/model.safetensors" if repository == "timm/test_vit.r160_in1k" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
    assert is_cached(URI)
    assert not is_cached("hf-hub://owner/name@1a2b")
    assert asked[-1] == ("owner/name", "1a2b")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("timm://test_vit", r"expected timm://NAME\.TAG"),
        ("timm://test_vit.other", "no weights 'test_vit.other'; of test_vit it has timm/test_vit.r160_in1k"),
        ("timm://resnet5.a1_in1k", "did you mean timm/resnet50"),
    ],
)
def test_unknown_names(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_timm_weights(uri)


def test_a_seed_goes_on_as_if_nothing_had_been_built(hub: list[str]) -> None:
    torch.manual_seed(0)
    load_timm_weights(URI)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({"weight": torch.zeros(3)})[:-4])
    with pytest.raises(ValueError, match="can't be read as safetensors"):
        load_weights(build_classifier("tiny", num_classes=2), path, read=read_bytes)
