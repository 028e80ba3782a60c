"""A process's CPUs change no byte of what networks compute: torch's sums would follow the number of its threads."""

import io
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from raypipe.artifacts import Artifact
from raypipe.config import Cams
from raypipe.config.base import Precision
from raypipe.data.checkpoints import Checkpoint, Task, write_checkpoint
from raypipe.networks import build_affinity_net, build_classifier, build_segmenter
from raypipe.networks.precision import use_bf16
from raypipe.stages.base import Stage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.decode import DecodeImages
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks
from raypipe.stages.segment import SegmentImages
from raypipe.streams.job import Job, PackedPool
from raypipe.streams.plan import Pool
from raypipe.streams.worker import Worker

SIZES = [(96, 128), (97, 131), (281, 500), (161, 240), (33, 65)]
THREADS = (1, 3, 4)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["tiny", "mobilenet_v2"])
def networks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Artifact]:
    """Networks with random weights."""
    torch.manual_seed(0)
    made: dict[Task, Any] = {
        "classifier": build_classifier(request.param, num_classes=2),
        "affinity": build_affinity_net(request.param),
        "segmenter": build_segmenter(request.param, head="deeplabv3", num_classes=2),
    }
    found = {}
    for task, network in made.items():
        uri = str(tmp_path_factory.mktemp(f"{request.param}-{task}"))
        checkpoint = Checkpoint(
            task=task,
            backbone=request.param,
            classes=("cat", "dog"),
            preprocessing=network.preprocessing.to_dict(),
            config={"section": {"saliency": "none", "head": "deeplabv3"}},
            weights=network.state_dict(),
        )
        write_checkpoint(checkpoint, uri)
        found[task] = Artifact(uri, task)
    return found


@pytest.fixture(params=[name for name in get_args(Precision) if name != "auto"])
def precision(request: pytest.FixtureRequest) -> Precision:
    if request.param == "bf16" and not use_bf16(torch.device("cpu"), "auto"):
        pytest.skip("this CPU has no bfloat16")
    found: Precision = request.param
    return found


def rows() -> pa.Table:
    images = []
    for height, width in SIZES:
        noise = np.random.default_rng(height).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(buffer, format="PNG")
        images.append(buffer.getvalue())
    names = [f"{height}x{width}" for height, width in SIZES]
    ids = pa.array([[1, 2]] * len(SIZES), pa.list_(pa.uint8()))
    return pa.table({"image_id": names, "image": images, "class_ids": ids})


def compute(stages: tuple[Stage, ...], threads: int, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows as a process computes them which may use so many CPUs."""
    torch.set_num_threads(threads)
    job = Job(
        name=str(threads),
        pool=PackedPool.of(Pool("device", stages, ("image_id", *columns))),
        on_gpu=False,
        threads=threads,
    )
    done: list[dict[str, Any]] = Worker(job)(rows()).to_pylist()
    assert [row["error_reason"] for row in done] == [None] * len(SIZES)
    return done


def check(stages: tuple[Stage, ...], *columns: str) -> None:
    alone, *others = [compute(stages, threads, columns) for threads in THREADS]
    for threads, done in zip(THREADS[1:], others, strict=True):
        differing = {
            (row["image_id"], name)
            for row, other in zip(alone, done, strict=True)
            for name in columns
            if row[name] != other[name]
        }
        assert not differing, f"with {threads} threads"


def test_masks(networks: dict[Task, Artifact], precision: Precision) -> None:
    images: dict[str, Any] = {"max_side": 1024, "precision": precision}
    cams = ComputeCams(classifier=networks["classifier"], cams=Cams(scales=(1.0, 0.5)), **images)
    walk = PropagateCams(
        affinity=networks["affinity"],
        alpha=4,
        beta=8,
        num_steps=16,
        radius=5,
        count_padding=False,
        cam_stride=cams.cams.out_stride,
        **images,
    )
    refine = RefineMasks(method="pamr", power=1, compat_bilateral=10, max_side=1024)
    check(
        (DecodeImages(max_side=1024), cams, walk, refine, EncodeMasks()),
        "cam",
        "scores",
        "predicted_iou",
        "mask",
        "confidence",
    )


def test_segments(networks: dict[Task, Artifact], precision: Precision) -> None:
    segment = SegmentImages(segmenter=networks["segmenter"], scales=(1.0,), max_side=1024, precision=precision)
    refine = RefineMasks(method="none", power=1, compat_bilateral=10, max_side=1024)
    check((DecodeImages(max_side=1024), segment, refine, EncodeMasks()), "scores", "mask", "confidence")
