"""A set of 10,000 rows on a cluster that isn't there: raypipe's own code says that all is done, and once."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_files import BENCHMARKS

ROWS = 10_000


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimpleNamespace]:
    """The simulator's modules; their package isn't installed."""
    sys.path.insert(0, str(BENCHMARKS))
    from simulator import overhead, setting, simulation, store, workload  # type: ignore[import-not-found]

    yield SimpleNamespace(overhead=overhead, setting=setting, simulation=simulation, store=store, workload=workload)
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def runs(simulator: SimpleNamespace) -> Iterator[SimpleNamespace]:
    setting = simulator.setting.Setting(nodes=2, start=1.0, core=0.05, failing=0.001)
    seeds = simulator.workload.seeds_plan()
    with simulator.simulation.Simulation(
        setting, rows=ROWS, speed=simulator.store.Speed(), rows_per_part=2_500, looks=1
    ) as simulation:
        simulation.open()
        killed = simulation.run(seeds, kill=ROWS / 2)
        resumed = simulation.run(seeds)
        done = simulation.run(seeds)
        masks = simulation.run(simulator.workload.masks_plan(seeds.artifact(simulator.simulation.OUT)))
        shards = simulation.store.below("bucket/out/masks")
        yield SimpleNamespace(
            killed=killed, resumed=resumed, done=done, masks=masks, counts=simulation.counts, shards=shards
        )


def test_all_rows_are_accounted_for(runs: SimpleNamespace) -> None:
    assert runs.killed.summary is None
    for leg in (runs.resumed, runs.done, runs.masks):
        assert (leg.summary.num_rows, leg.summary.num_finished, leg.summary.num_quarantined) == (ROWS, 9_990, 10)
    assert runs.done.summary.num_computed == 0
    assert runs.masks.summary.num_computed == ROWS


def test_nothing_is_written_twice_after_a_kill(runs: SimpleNamespace) -> None:
    assert ROWS / 2 <= runs.killed.seen.rows < ROWS
    assert runs.killed.seen.rows + runs.resumed.seen.rows == ROWS
    for name in ("seeds", "masks"):
        assert np.array_equal(np.bincount(runs.counts[name]), [0, ROWS])


def test_settled_parts_hold_shards_of_the_declared_size(runs: SimpleNamespace) -> None:
    # 2,500 rows of 115 KB are 288 MB, in shards of 64 MiB: the last of each part is smaller.
    assert not [path for path in runs.shards if "/attempts/" in path]
    number = len([path for path in runs.shards if "/shards/" in path]) / 4
    assert 4 <= number <= 5


def test_time_is_that_of_the_cards_and_no_less(runs: SimpleNamespace) -> None:
    masks = runs.masks
    assert masks.work == pytest.approx(ROWS * 0.1 / 2)
    assert masks.work + 1.0 < masks.seconds < 1.25 * masks.work
    assert masks.seen.first_read - masks.seen.begun < 10


def test_requests_are_those_of_the_work(runs: SimpleNamespace) -> None:
    requests = runs.masks.requests
    assert requests["fetch images", "GET"] == ROWS
    blocks = ROWS / 32
    assert requests["write a block", "PUT"] == pytest.approx(2 * blocks, rel=0.1)
    # All indexes that workers have written are read once to be folded, or by what settles their part.
    assert requests["fold indexes", "DELETE"] == requests["fold indexes", "GET"]


def test_parts_that_repeat_others_give_the_same(simulator: SimpleNamespace) -> None:
    setting = simulator.setting.Setting(nodes=2, start=1.0, core=0.05)
    found = []
    for real_parts in (None, 1):
        with simulator.simulation.Simulation(
            setting, rows=3_000, speed=simulator.store.Speed(), rows_per_part=250, real_parts=real_parts, looks=1
        ) as simulation:
            simulation.open()
            leg = simulation.run(simulator.workload.seeds_plan())
            found.append((leg.seconds, leg.summary.num_finished, leg.requests.total() - leg.requests["lease", "GET"]))
    assert found[0][1] == found[1][1]
    assert found[1][0] == pytest.approx(found[0][0], rel=0.1)
    assert found[1][2] == pytest.approx(found[0][2], rel=0.1)


def test_the_fit_finds_what_runs_were_made_of(simulator: SimpleNamespace) -> None:
    overhead = simulator.overhead
    runs = [
        overhead.Run(blocks=blocks, rows=rows, first=1.0, seconds=3.0 + 5 * blocks * (0.01 + 1e-5 * rows), cpu=1.0)
        for blocks, rows in overhead.RUNS
    ]
    found = overhead.fit(runs, "seconds")
    assert (found.start, found.block, found.row) == pytest.approx((3.0, 0.01, 1e-5))
    assert found.error < 1e-6
    assert [slope for _, _, slope in overhead.slopes(runs, "seconds")] == pytest.approx([0.01008] * 2 + [0.01064])


def test_a_store_waits_for_first_bytes_and_streams(simulator: SimpleNamespace) -> None:
    speed = simulator.store.Speed(first_byte=0.025, stream=80e6, process=250e6)
    assert speed.seconds(0, 0) == 0
    assert speed.seconds(1, 80_000_000) == pytest.approx(0.025 + 1.0)
    # Ten connections: 25 files take three rounds, and the process bears 250 MB/s.
    assert speed.seconds(25, 250_000_000) == pytest.approx(3 * 0.025 + 1.0)
