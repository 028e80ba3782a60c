"""A step up to its loss; that workers add up to the whole batch is in test_loop.py."""

import numpy as np
import pytest
import torch

from raypipe.training.batch import Batch
from raypipe.training.step import distributed_loss, loss_terms
from raypipe.training.tasks import AffinityTask, ClassifierTask, TrainingTask

CLASSIFIER = ClassifierTask(backbone="tiny", weights=None, preprocessing=None, num_classes=2, output_stride=8)
AFFINITY = AffinityTask(backbone="tiny", weights=None, preprocessing=None, radius=3)


def make_batch() -> Batch:
    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.integers(0, 256, (3, 3, 64, 64), dtype=np.uint8))
    targets = {
        "labels": torch.tensor([[1, 0], [0, 1], [255, 255]], dtype=torch.uint8),
        "trimap": torch.from_numpy(rng.choice(np.array([0, 1, 255], np.uint8), (3, 8, 8))),
    }
    return Batch(crops, targets, torch.tensor([True, True, False]))


@pytest.mark.parametrize("task", [CLASSIFIER, AFFINITY], ids=lambda task: task.name)
def test_terms_are_those_of_the_normalised_crops(task: TrainingTask) -> None:
    torch.manual_seed(0)
    network, batch = task.build().eval(), make_batch()
    sums, counts = loss_terms(task, network, batch, preprocessing=network.preprocessing, precision="fp32")
    expected = task.loss_terms(network(network.preprocessing.normalize(batch.crops)), batch)
    torch.testing.assert_close((sums, counts), expected)
    loss = distributed_loss(task, sums, counts, world_size=1)
    torch.testing.assert_close(loss, task.loss(sums, counts))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("task", [CLASSIFIER, AFFINITY], ids=lambda task: task.name)
def test_losses_are_float32_whatever_the_network_s_precision(task: TrainingTask) -> None:
    torch.manual_seed(0)
    network, batch = task.build().eval(), make_batch()
    exact, half = (
        loss_terms(task, network, batch, preprocessing=network.preprocessing, precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert half[0].dtype == torch.float32
    torch.testing.assert_close(half[0], exact[0], rtol=0.05, atol=0.05)
    assert torch.equal(half[1], exact[1])
