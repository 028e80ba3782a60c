import torch

from raypipe.config import load_config
from raypipe.networks import build_segmenter
from raypipe.training.state import TrainingState


def make_state() -> TrainingState:
    options = ["network.backbone=tiny", "network.weights=null", "segmenter.lr=0.1", "optimizer.name=sgd"]
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
