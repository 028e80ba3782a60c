import json
import logging
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch
from torch import Tensor

from raypipe.networks import Network, build_affinity_net, build_classifier, load_weights
from raypipe.networks.weights import load_state
from raypipe.storage import read_bytes


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        return path

    return write


def published(network: Network) -> dict[str, Tensor]:
    """Return the network's weights by the names that its authors publish."""
    return {key.removeprefix("backbone."): torch.randn(value.shape) for key, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("keys", "build"),
    [
        ("resnet38_cls", lambda: build_classifier("resnet38", num_classes=20)),
        ("resnet38_aff", lambda: build_affinity_net("resnet38")),
        ("vgg16_cls", lambda: build_classifier("vgg16", num_classes=20)),
        ("vgg16_aff", lambda: build_affinity_net("vgg16")),
    ],
)
@pytest.mark.shared_data
def test_names_and_shapes_are_psas(golden: Path, keys: str, build: Callable[[], Network]) -> None:
    with torch.device("meta"):
        weights = build().state_dict()
    ours = {key.removeprefix("backbone."): list(value.shape) for key, value in weights.items()}
    ours = {key: shape for key, shape in ours.items() if not key.endswith("num_batches_tracked")}
    assert ours == json.loads((golden / f"{keys}_keys.json").read_text())


@pytest.mark.shared_data
def test_mobilenets_imagenet_checkpoint(weights_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = build_classifier("mobilenet_v2", num_classes=3)
    with caplog.at_level(logging.INFO, logger="raypipe"):
        kept = load_weights(network, weights_dir / "mobilenet_v2_imagenet.pth", read=read_bytes)
    assert kept == ("fc8.weight",)
    assert (
        "the head for its own classes is left out, as it should be: classifier.1.weight, classifier.1.bias"
        in caplog.text
    )
    assert "the head of this network begins with initial weights: fc8.weight" in caplog.text


def test_own_and_published_names_and_containers_are_the_same(save: Callable[[object], Path]) -> None:
    network = build_classifier("tiny", num_classes=2)
    weights = published(network)
    own = {name: weights[name.removeprefix("backbone.")] for name in network.state_dict()}
    parallel = {f"module.{name}": tensor for name, tensor in own.items()}
    for content in (weights, own, parallel, {"state_dict": own, "epoch": 3}, {"model": parallel}):
        fresh = build_classifier("tiny", num_classes=2)
        assert load_weights(fresh, save(content), require_head=True, read=read_bytes) == ()
        for name, tensor in fresh.state_dict().items():
            torch.testing.assert_close(tensor, own[name])


def test_reads_any_uri() -> None:
    network = build_classifier("tiny", num_classes=2)
    with fsspec.open("memory://networks/tiny.pth", "wb") as file:
        torch.save(network.state_dict(), file)
    assert load_weights(build_classifier("tiny", num_classes=2), "memory://networks/tiny.pth", read=read_bytes) == ()


def test_a_classifiers_weights_start_an_affinity_net(save: Callable[[object], Path]) -> None:
    classifier = build_classifier("tiny", num_classes=2)
    network = build_affinity_net("tiny")
    head = {name: tensor.clone() for name, tensor in network.state_dict().items() if not name.startswith("backbone.")}
    kept = load_weights(network, save(classifier.state_dict()), read=read_bytes)
    assert set(kept) == set(head)
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in head.items())
    assert torch.equal(network.backbone.stem.weight, classifier.backbone.stem.weight)


def test_require_head_refuses_a_file_without_one(save: Callable[[object], Path]) -> None:
    path = save(build_classifier("tiny", num_classes=2).state_dict())
    with pytest.raises(ValueError, match=r"AffinityNet of tiny: 10 missing \(f8_3.weight.*…\)"):
        load_weights(build_affinity_net("tiny"), path, require_head=True, read=read_bytes)


def test_half_a_head_is_refused(save: Callable[[object], Path]) -> None:
    weights = build_affinity_net("tiny").state_dict()
    del weights["f9.weight"]
    with pytest.raises(ValueError, match=r"1 missing \(f9.weight\)\. The backbone's weights fit"):
        load_weights(build_affinity_net("tiny"), save(weights), read=read_bytes)


def test_names_what_is_missing_unexpected_and_of_another_shape(save: Callable[[object], Path]) -> None:
    network = build_classifier("tiny", num_classes=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = published(network)
    del weights["stem.bias"]
    weights["surprise"] = torch.zeros(1)
    weights["fc8.weight"] = torch.zeros(3, 128, 1, 1)
    with pytest.raises(ValueError, match="doesn't fit the Classifier of tiny") as error:
        load_weights(network, save(weights), read=read_bytes)
    message = str(error.value)
    assert "1 missing (stem.bias)" in message
    assert "1 unexpected (surprise)" in message
    assert "1 mismatched (fc8.weight (3, 128, 1, 1) instead of (2, 128, 1, 1))" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("given", "wanted"), [("resnet18", "tiny"), ("resnet34", "resnet18"), ("tiny", "resnet18")])
def test_another_architecture_is_recognised(given: str, wanted: str, save: Callable[[object], Path]) -> None:
    path = save(build_classifier(given, num_classes=2).state_dict())
    with pytest.raises(ValueError, match=f'looks like a checkpoint of {given}: use backbone="{given}"'):
        load_weights(build_classifier(wanted, num_classes=2), path, read=read_bytes)


def test_torchvisions_head_is_dropped(save: Callable[[object], Path]) -> None:
    network = build_classifier("resnet18", num_classes=2)
    weights = {name: tensor for name, tensor in published(network).items() if not name.startswith("fc8.")}
    path = save(weights | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)})
    assert load_weights(network, path, read=read_bytes) == ("fc8.weight",)
    torch.testing.assert_close(network.backbone.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], {"weight": "text"}, {"epoch": 3}])
def test_refuses_what_holds_no_weights(content: object, save: Callable[[object], Path]) -> None:
    with pytest.raises(ValueError, match="holds no weights"):
        load_weights(build_classifier("tiny", num_classes=2), save(content), read=read_bytes)


def test_refuses_pickled_objects_and_damaged_files(save: Callable[[object], Path], tmp_path: Path) -> None:
    network = build_classifier("tiny", num_classes=2)
    with pytest.raises(ValueError, match="it could run code"):
        load_weights(network, save({"path": Path("x")}), read=read_bytes)
    for damaged in (b"", b"not weights"):
        (tmp_path / "damaged.pth").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            load_weights(network, tmp_path / "damaged.pth", read=read_bytes)


def test_state_in_memory_may_hold_batch_counters() -> None:
    state = build_classifier("resnet18", num_classes=2).state_dict()
    assert any(name.endswith("num_batches_tracked") for name in state)
    assert load_state(build_classifier("resnet18", num_classes=2), state, source="memory", require_head=True) == ()
    with pytest.raises(ValueError, match="memory doesn't fit the Classifier of tiny"):
        load_state(build_classifier("tiny", num_classes=2), state, source="memory")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: give the path or URI"):
        load_weights(build_classifier("tiny", num_classes=2), tmp_path / "nowhere.pth", read=read_bytes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(save: Callable[[object], Path], value: float) -> None:
    network = build_classifier("tiny", num_classes=2)
    weights = published(network)
    name = next(name for name, tensor in weights.items() if tensor.dim() == 4)
    weights[name][0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"weights.pth holds NaN or infinity in 1 of \d+ tensors \({name}\)"):
        load_weights(network, save(weights), read=read_bytes)
