from pathlib import Path

import pytest
import torch

from raypipe.config import load_config
from raypipe.networks import build_segmenter
from raypipe.training.order import Position
from raypipe.training.state import STATE_FILE, TrainingState, read_state


def make_state(optimizer: str = "sgd") -> TrainingState:
    options = ["network.backbone=tiny", "network.weights=null", "segmenter.lr=0.1", f"optimizer.name={optimizer}"]
    training = load_config("", ["manifest=m", "out=o", *options]).training("segmenter")
    return TrainingState(build_segmenter("tiny", head="lraspp", num_classes=1), training, num_steps=10)


def step(state: TrainingState) -> torch.Tensor:
    """One step; the weights that it leads to."""
    weight = state.network.head.classify.low_classifier.weight  # type: ignore[union-attr]
    state.step(sum(parameter.sum() for parameter in state.network.parameters() if parameter.requires_grad))
    return weight.detach().clone()


def test_the_last_weights_are_used() -> None:
    state = make_state()
    last = step(state)
    torch.testing.assert_close(state.weights_to_use["head.classify.low_classifier.weight"], last)


def test_the_best_epoch_s_weights_are_kept() -> None:
    state = make_state()
    weights = []
    for score in (0.2, 0.5, 0.3):
        weights.append(step(state))
        state.finish_epoch({"mean_iou": score})
    assert state.weights_to_use["head.classify.low_classifier.weight"].equal(weights[1])
    assert [metrics["mean_iou"] for metrics in state.history] == [0.2, 0.5, 0.3]


class Reported:
    """Keeps what is reported, as Ray Train's upload does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.states: list[Path] = []
        self.folder = folder
        monkeypatch.setattr("ray.train.report", self)

    def __call__(self, metrics: dict[str, int], *, checkpoint: object, checkpoint_upload_mode: object) -> None:
        assert checkpoint is None or checkpoint_upload_mode.value == "ASYNC"  # type: ignore[attr-defined]
        self.metrics = metrics
        if checkpoint is not None:
            self.states.append(Path(checkpoint.path) / STATE_FILE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_state_within_an_epoch_goes_on_as_if_nothing_was(
    optimizer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reported = Reported(monkeypatch, tmp_path)
    torch.manual_seed(0)
    state = make_state(optimizer)
    step(state)
    state.finish_epoch({"loss": 1.0, "mean_iou": 0.5})
    step(state)
    totals = {"totals": torch.tensor([3.0, 2.0]), "seconds": 1.5, "seconds_waiting": 0.5}
    state.report(Position(1, 7), totals, rank=0)
    state.report(Position(1, 7), totals, rank=1)
    assert reported.metrics == {"epoch": 1, "step": 7}
    (file,) = reported.states  # worker 0 writes
    lr = state.lr
    expected = [step(state) for _ in range(3)]

    torch.manual_seed(1)
    restored = make_state(optimizer)
    position, found = restored.load(read_state(str(file.parent)))
    assert position == (1, 7)
    assert found is not None
    assert found["totals"].equal(totals["totals"])
    assert (found["seconds"], found["seconds_waiting"]) == (1.5, 0.5)
    assert restored.lr == lr
    assert all(step(restored).equal(weight) for weight in expected)
    assert restored.history == [{"loss": 1.0, "mean_iou": 0.5}]
    assert restored.weights_to_use.keys() == state.weights_to_use.keys()
    assert all(value.equal(state.weights_to_use[name]) for name, value in restored.weights_to_use.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_infinite_is_seen_in_weights_and_optimiser(value: float) -> None:
    state = make_state()
    step(state)
    assert state.is_finite()
    buffer = next(kept["momentum_buffer"] for kept in state._optimizer.state.values())
    kept = buffer.clone()
    buffer.view(-1)[-1] = value
    assert not state.is_finite()
    buffer.copy_(kept)
    assert state.is_finite()
    next(iter(state.network.parameters())).data.view(-1)[0] = value
    assert not state.is_finite()
