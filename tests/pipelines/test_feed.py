"""The batches of training workers, without Ray: in the place of a stream, its rows come as they are."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.artifacts import Artifact
from raypipe.cluster.resources import PoolPlan
from raypipe.config import Training, load_config
from raypipe.data.images import encode_png
from raypipe.pipelines import feed as module
from raypipe.pipelines.feed import DRAWN, make_feed, make_validation_feed, processes, rows_to_feed
from raypipe.stages.base import columns_after, run_stages
from raypipe.stages.crops import LoadClassifierCrops
from raypipe.stages.shard_crops import LoadAffinityCrops
from raypipe.streams.job import INDEX
from raypipe.streams.plan import Pool
from raypipe.training.order import Position, epoch_order

IDS = ["a", "b", "c", "d", "e"]
TABLE = pa.table({"image_id": IDS, "image_uri": [f"{name}.jpg" for name in IDS], "labels": [["cat"]] * 5})
BATCH_SIZE, EPOCHS = 4, 3
STEPS = 2
"""Five images in batches of four: the second is filled up from the start of the order."""
LOADERS = processes("loader", actors=2, cpus=0.5)

Drawn = tuple[str, int, int]
"""Image, epoch, and how many times it was drawn before."""


class Streams:
    """Yields the rows of streams in blocks, and remembers how many there were."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.block_sizes: list[int] = []

    def __call__(
        self,
        rows: pa.Table,
        pools: Sequence[tuple[Pool, PoolPlan]],
        *,
        rows_per_block: int,
        rows_per_batch: int,
        indexed: pa.Table,
        **options: Any,
    ) -> Iterator[pa.Table]:
        """In the place of `execute`."""
        assert options["in_order"], "the order of the batches is that of the training"
        ((pool, resources),) = pools
        assert resources == LOADERS
        assert {"image_id", "crop", "target"} <= set(pool.keep)
        assert {field.type for field in rows.schema} == {pa.int32()}, "a draw is a few numbers"
        assert rows_per_block % rows_per_batch == rows.num_rows % rows_per_batch == 0, "batches lie in one block"
        self.sizes.append(rows.num_rows)
        self.block_sizes.append(rows_per_block)
        whole = rows.append_column("image_id", indexed["image_id"].take(rows[INDEX]))
        for start in range(0, rows.num_rows, rows_per_batch):
            yield whole.slice(start, rows_per_batch)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    found = Streams()
    monkeypatch.setattr(module, "execute", found)
    monkeypatch.setattr("ray.get", lambda value: value)
    return found


def training() -> Training:
    options = [f"classifier.batch_size={BATCH_SIZE}", f"classifier.epochs={EPOCHS}", "seed=3"]
    return load_config("preset: demo", ["manifest=m.parquet", "out=out", *options]).training("classifier")


CROPS = LoadClassifierCrops(
    crop_size=32, fill=(0, 0, 0), jitter=(0, 0, 0, 0), seed=3, max_side=64, classes=("cat",), long_side=(32, 32)
)


def blocks(first_epoch: int, rank: int, world_size: int, *, step: int = 0, **options: Any) -> list[list[Drawn]]:
    """What a worker reads, step by step, from a step of an epoch on."""
    feed = make_feed(TABLE, CROPS, training(), LOADERS, **options)
    return [
        list(zip(*(block[name].to_pylist() for name in ("image_id", "epoch", "repeat")), strict=True))
        for block in feed(Position(first_epoch, step), rank, world_size)
    ]


def batches(world_size: int, **options: Any) -> list[list[Drawn]]:
    """The batches of all workers together: one takes every world_size-th draw, from its rank on."""
    workers = [blocks(0, rank, world_size, **options) for rank in range(world_size)]
    return [
        [parts[index % world_size][index // world_size] for index in range(BATCH_SIZE)]
        for parts in zip(*workers, strict=True)
    ]


def test_one_worker_reads_the_order_of_each_epoch(streams: Streams) -> None:
    expected: list[list[Drawn]] = []
    for epoch in range(EPOCHS):
        order = [IDS[index] for index in epoch_order(pa.array(IDS), seed=3, epoch=epoch)[0]]
        expected += [[(name, epoch, 0) for name in step] for step in (order[:4], order[4:] + order[:3])]
    assert blocks(0, 0, 1) == expected
    assert len({tuple(name for name, *_ in batch) for batch in expected[::STEPS]}) == EPOCHS, "orders differ"


@pytest.mark.parametrize("world_size", [2, 4])
def test_workers_batches_together_are_those_of_one(world_size: int, streams: Streams) -> None:
    assert batches(world_size) == blocks(0, 0, 1)


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_image_that_is_drawn_again_makes_another_crop(world_size: int, streams: Streams) -> None:
    """Of 5 draws the last image gets 5 · 4 / 8 = 2.5, the others 0.625."""
    drawn = batches(world_size, factors=np.array([1.0, 1, 1, 1, 4]))
    for epoch in range(EPOCHS):
        of_epoch = drawn[epoch * STEPS] + drawn[epoch * STEPS + 1][:1]  # without what fills the last batch
        repeats = sorted(repeat for name, _, repeat in of_epoch if name == "e")
        assert repeats in ([0, 1], [0, 1, 2])
        assert len(set(of_epoch)) == 5


def test_a_training_that_goes_on_reads_the_epochs_that_are_left(streams: Streams) -> None:
    assert blocks(1, 1, 2) == blocks(0, 1, 2)[STEPS:]
    assert blocks(EPOCHS, 0, 1) == [], "it was interrupted after its last epoch"


@pytest.mark.parametrize("rows_per_stream", [3, 10, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_training_that_goes_on_within_an_epoch_reads_what_is_left_of_it(
    world_size: int, rows_per_stream: int, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_STREAM", rows_per_stream)
    factors = np.array([1.0, 1, 1, 1, 4])
    for rank in range(world_size):
        whole = blocks(0, rank, world_size, factors=factors)
        for taken in range(EPOCHS * STEPS):
            epoch, step = divmod(taken, STEPS)
            assert blocks(epoch, rank, world_size, step=step, factors=factors) == whole[taken:]


def test_workers_of_an_uneven_width_share_each_batch(streams: Streams) -> None:
    """Three workers of a batch of four take two, one and one."""
    workers = [blocks(0, rank, 3) for rank in range(3)]
    assert [len(worker[0]) for worker in workers] == [2, 1, 1]
    for whole, *parts in zip(blocks(0, 0, 1), *workers, strict=True):
        assert sorted(whole) == sorted(drawn for part in parts for drawn in part)


@pytest.mark.parametrize(
    ("rows_per_stream", "world_size", "sizes"),
    [
        # 10 // 5 images are two epochs, of two steps of four rows each.
        (10, 1, [16, 8]),
        # Each of two workers reads half of an epoch, so it has four.
        (10, 2, [12]),
        # An epoch that is larger than a stream is one all the same.
        (3, 1, [8, 8, 8]),
    ],
)
def test_epochs_share_streams_up_to_a_number_of_rows(
    rows_per_stream: int, world_size: int, sizes: list[int], streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = blocks(0, 0, world_size)
    assert streams.sizes == [EPOCHS * STEPS * BATCH_SIZE // world_size]
    streams.sizes.clear()
    monkeypatch.setattr(module, "_ROWS_PER_STREAM", rows_per_stream)
    assert blocks(0, 0, world_size) == whole
    assert streams.sizes == sizes


@pytest.mark.parametrize(
    ("num_images", "batch_size", "world_size", "expected"),
    [
        (100_000, 16, 1, 256),
        (100_000, 16, 2, 256),
        (100_000, 24, 1, 264),  # whole batches
        (100_000, 512, 1, 512),
        (40, 8, 1, 8),  # 3 epochs of 5 steps: four blocks for each of two loaders are of a step or two
        (400, 8, 1, 8 * (3 * 50 // 8)),
    ],
)
def test_blocks_are_large_where_there_is_much_to_draw(
    num_images: int, batch_size: int, world_size: int, expected: int, streams: Streams
) -> None:
    names = [f"{index}" for index in range(num_images)]
    options = [f"classifier.batch_size={batch_size}", f"classifier.epochs={EPOCHS}"]
    told = load_config("preset: demo", ["manifest=m.parquet", "out=out", *options]).training("classifier")
    next(make_feed(pa.table({"image_id": names}), CROPS, told, LOADERS)(Position(0, 0), 0, world_size))
    assert streams.block_sizes == [expected]


def test_rows_to_feed_are_what_crops_read_and_a_shard_s_uri_is_held_once() -> None:
    """A million rows of a thousand shards: 60 bytes of URI are four."""
    number, uris = 10_000, [f"s3://bucket/out/seeds/0123456789ab/shards/{index:016}.parquet" for index in range(10)]
    rows = pa.table(
        {
            "image_id": [f"{index}" for index in range(number)],
            "image_uri": [None] * number,
            "shard_uri": [uris[index % 10] for index in range(number)],
            "shard_row": pa.array(range(number), pa.int32()),
            "shard_digest": ["0" * 16] * number,
            "labels": [["cat"]] * number,
        }
    )
    crops = LoadAffinityCrops(
        seeds=Artifact("seeds", "s"), crop_size=32, fill=(0, 0, 0), jitter=(0, 0, 0, 0), seed=3, max_side=64
    )
    fed = rows_to_feed(rows, crops)
    assert fed.column_names == ["image_id", "image_uri", "shard_uri", "shard_row"]
    assert fed["shard_uri"].to_pylist() == rows["shard_uri"].to_pylist()
    assert fed["shard_uri"].nbytes < 5 * number
    columns_after([*fed.column_names, *DRAWN], [crops])


@pytest.fixture
def validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """Five images with true masks; their streams run in this process."""

    def execute(rows: pa.Table, pools: Sequence[tuple[Pool, PoolPlan]], **_options: Any) -> Iterator[pa.Table]:
        assert rows.num_rows, "a stream without rows costs a second, and Ray Data has no block for it"
        for pool, _ in pools:
            rows = run_stages(pool.stages, rows, keep=pool.keep)
        yield rows

    monkeypatch.setattr(module, "execute", execute)
    monkeypatch.setattr("ray.get", lambda value: value)
    for index, name in enumerate(IDS):
        (tmp_path / f"{name}.png").write_bytes(encode_png(np.full((2, 3), index, np.uint8)))
    uris = [str(tmp_path / f"{name}.png") for name in IDS]
    return pa.table({"image_id": IDS, "image_uri": uris, "mask_uri": uris})


CONFIG = load_config("preset: demo", ["manifest=m", "out=o"])


@pytest.mark.parametrize("world_size", [1, 2, 4, 7])
def test_workers_share_the_images_to_validate_on(world_size: int, validated: pa.Table) -> None:
    feed = make_validation_feed(validated, LOADERS, CONFIG, num_classes=5)
    parts = [[row for block in feed(rank, world_size) for row in block.to_pylist()] for rank in range(world_size)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    rows = sorted((row for part in parts for row in part), key=lambda row: row["image_id"])
    assert [row["image_id"] for row in rows] == IDS
    for row, uri in zip(rows, validated["mask_uri"].to_pylist(), strict=True):
        assert row["error_reason"] is None
        assert row["image"] == row["mask"] == Path(uri).read_bytes()


def test_a_mask_of_unknown_classes_is_in_error_and_not_lost(validated: pa.Table) -> None:
    """Class id 4 is that of the last image."""
    (block,) = make_validation_feed(validated, LOADERS, CONFIG, num_classes=4)(0, 1)
    assert block["error_stage"].to_pylist() == [None] * 4 + ["LoadTrueMasks"]
