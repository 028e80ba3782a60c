"""The loop's parts without Ray; real process groups check that workers add up to the whole batch."""

import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from raypipe.networks.preprocessing import IMAGENET, TENSORFLOW
from raypipe.training.batch import Batch
from raypipe.training.loop import EpochTotals, _is_blind
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.step import distributed_loss
from raypipe.training.tasks import AffinityTask, ClassifierTask, SegmenterTask, TrainingTask

CLASSIFIER = ClassifierTask(backbone="tiny", weights=None, preprocessing=None, num_classes=3, output_stride=8)
AFFINITY = AffinityTask(backbone="tiny", weights=None, preprocessing=None, radius=5)
SEGMENTER = SegmenterTask(
    backbone="tiny",
    weights=None,
    preprocessing=None,
    num_classes=2,
    head="deeplabv3",
)
SALIENCY = SaliencyTask(
    backbone="tiny",
    weights=None,
    preprocessing=None,
    num_classes=3,
    output_stride=8,
    method="eps++",
    eps_share=0,
    ird_tau=None,
    stride=1,
)
TASKS = (CLASSIFIER, AFFINITY, SALIENCY, SEGMENTER)
BATCH_SIZE = 6


def make_batch(task: TrainingTask) -> tuple[torch.Tensor, Batch]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.standard_normal((BATCH_SIZE, 3, 48, 48)).astype(np.float32))
    cells = rng.choice(np.array([0, 1, 2, 255], np.uint8), (BATCH_SIZE, 3, 3))
    if isinstance(task, ClassifierTask):
        targets = {"labels": rng.integers(0, 2, (BATCH_SIZE, 3)).astype(np.uint8)}
        if isinstance(task, SaliencyTask):
            targets["saliency"] = rng.choice(np.array([0, 30, 255], np.uint8), (BATCH_SIZE, 48, 48))
    elif isinstance(task, AffinityTask):
        cells[0::3] = 0  # worker 0 of three has no foreground pair
        targets = {"trimap": cells.repeat(2, axis=1).repeat(2, axis=2)}
    else:
        is_true = np.array([[1], [0], [0], [1], [0], [0]], np.uint8)  # worker 0 of three has all true masks
        targets = {"mask": cells.repeat(16, axis=1).repeat(16, axis=2), "is_true": is_true}
    return images, make_parts(torch.ones(BATCH_SIZE, dtype=torch.bool), **targets)


def make_parts(valid: torch.Tensor, **targets: np.ndarray) -> Batch:
    crops = torch.zeros(len(valid), 3, 48, 48, dtype=torch.uint8)
    return Batch(crops, {name: torch.from_numpy(target) for name, target in targets.items()}, valid)


def part_of(batch: Batch, rank: int, world_size: int) -> Batch:
    own = slice(rank, None, world_size)
    targets = {name: target[own] for name, target in batch.targets.items()}
    return Batch(batch.crops[own], targets, batch.valid[own])


def loss_and_gradient(task: TrainingTask, rank: int, world_size: int) -> tuple[float, np.ndarray]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network: torch.nn.Module = task.build().eval()  # dropout off
    if world_size > 1:
        network = torch.nn.parallel.DistributedDataParallel(network)
    images, whole = make_batch(task)
    batch = part_of(whole, rank, world_size)
    sums, counts = task.loss_terms(network(images[rank::world_size]), batch)
    distributed_loss(task, sums, counts, world_size=world_size).backward()
    totals = EpochTotals(len(task.term_names), torch.device("cpu"))
    totals.add(sums, counts, valid=batch.valid)
    gradient = torch.cat([p.grad.reshape(-1) for p in network.parameters() if p.grad is not None])
    return totals.metrics(task)["loss"], gradient.numpy()


def run_worker(rank: int, world_size: int, port: int, results: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    for task in TASKS:
        loss, gradient = loss_and_gradient(task, rank, world_size)
        if rank == 0:
            np.savez(results / f"{type(task).__name__}.npz", loss=loss, gradient=gradient)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module", params=[3, 4])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What so many workers find, a file a task. Four have uneven shares.

    A server that has imported all of it starts them: importing takes most of the time.
    """
    multiprocessing.set_forkserver_preload(["raypipe.training.tasks", "raypipe.training.saliency_task"])
    folder = tmp_path_factory.mktemp("results")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(run_worker, (request.param, port, folder), nprocs=request.param, start_method="forkserver")
    return folder


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_workers_give_the_loss_and_gradient_of_the_whole_batch(task: TrainingTask, results: Path) -> None:
    expected_loss, expected_gradient = loss_and_gradient(task, 0, 1)
    with np.load(results / f"{type(task).__name__}.npz") as result:
        assert result["loss"] == pytest.approx(expected_loss, rel=1e-5)
        np.testing.assert_allclose(result["gradient"], expected_gradient, rtol=1e-3, atol=3e-6)


def test_unreadable_crops_count_nothing() -> None:
    logits = torch.zeros(2, 3)
    batch = make_parts(torch.tensor([True, False]), labels=np.array([[0, 1, 0], [255, 255, 255]], np.uint8))
    sums, counts = CLASSIFIER.loss_terms(logits, batch)
    alone, alone_counts = CLASSIFIER.loss_terms(logits[:1], part_of(batch, 0, 2))
    assert (sums.item(), counts.item()) == (alone.item(), alone_counts.item())


def test_a_batch_without_any_readable_crop_has_zero_loss_and_gradient() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    batch = make_parts(torch.zeros(2, dtype=torch.bool), labels=np.zeros((2, 3), np.uint8))
    sums, counts = CLASSIFIER.loss_terms(logits, batch)
    loss = distributed_loss(CLASSIFIER, sums, counts, world_size=1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_totals_are_means_over_the_epoch() -> None:
    totals = EpochTotals(1, torch.device("cpu"))
    totals.add(torch.tensor([6.0]), torch.tensor([3.0]), valid=torch.tensor([True, True, False]))
    totals.add(torch.tensor([2.0]), torch.tensor([1.0]), valid=torch.tensor([True]))
    metrics = totals.metrics(CLASSIFIER)
    assert metrics["loss"] == 2
    assert (metrics["num_images"], metrics["num_unreadable"]) == (4, 1)
    assert metrics["images_per_second"] > 0


def test_a_training_is_blind_without_more_than_half_of_the_images() -> None:
    assert not _is_blind({"num_images": 12, "num_unreadable": 6})
    assert _is_blind({"num_images": 12, "num_unreadable": 7})


@pytest.mark.parametrize("task", TASKS)
def test_preprocessing_is_the_configured_one_or_the_backbone_s(task: TrainingTask) -> None:
    assert task.build().preprocessing == IMAGENET
    assert replace(task, preprocessing=TENSORFLOW).build().preprocessing == TENSORFLOW


def test_a_frozen_backbone_trains_the_head_alone() -> None:
    task = AffinityTask(backbone="tiny", weights=None, preprocessing=None, radius=5, freeze_backbone=True)
    trained = {name.split(".")[0] for name, parameter in task.build().named_parameters() if parameter.requires_grad}
    assert trained == {"f8_3", "f8_4", "f8_5", "gn8_3", "gn8_4", "gn8_5", "f9"}


def test_true_masks_and_pseudo_masks_have_their_own_losses() -> None:
    logits = torch.zeros(2, 3, 2, 2)
    logits[:, 1] = 2.0
    mask = np.full((2, 16, 16), 1, np.uint8)
    mask[1, 7:] = 255
    mask[1, 0] = 0
    batch = make_parts(torch.ones(2, dtype=torch.bool), mask=mask, is_true=np.array([[1], [0]], np.uint8))
    sums, counts = SEGMENTER.loss_terms(logits, batch)
    assert counts.tolist() == [256, 7 * 16]
    background, right, _ = -torch.log_softmax(logits[0, :, 0, 0], dim=0)
    torch.testing.assert_close(sums / counts, torch.stack([right, (6 * right + background) / 7]))
    torch.testing.assert_close(SEGMENTER.loss(sums, counts), right + (6 * right + background) / 7)
