"""The streams of today; `latency.py` runs this in a process of its own, with the checkout on PYTHONPATH."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import pyarrow as pa
import ray
import typer
from simulator.overhead import start_ray
from simulator.workload import FinishMasks, MakeMaps, WalkMaps, masks_plan, seeds_plan

from latency_trees.rows import CLASSES, MAP_BYTES, MASK_BYTES, MOMENTS, manifest_rows, slept, tell
from raypipe import storage
from raypipe.cluster.machines import Machine, parse_machine
from raypipe.config import Budget, RunConfig
from raypipe.data.rows import Rows
from raypipe.data.shards import read_shards
from raypipe.outputs.ledger import SHARDS
from raypipe.pipelines.context import plan_pools
from raypipe.schema import MASKS
from raypipe.stages.base import Row
from raypipe.stages.decode import DecodeImages
from raypipe.stages.fetch import FetchImages
from raypipe.streams.plan import Plan
from raypipe.streams.run import Settings, run_stream


@dataclass(kw_only=True)
class Walk(WalkMaps):
    """Stands for PropagateCams, and notes when it worked."""

    writes = pa.schema([*WalkMaps.writes, *MOMENTS])

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Sleeps for the rows."""
        moments = slept(len(rows))
        return [row | moments for row in super().process_all(rows)]


def main(
    step: Annotated[str, typer.Argument(help="seeds, whose maps the masks take, or masks")],
    out: str,
    number: int,
    gpus: int,
    uris: list[str],
) -> None:
    """Runs one of the two streams."""
    start_ray(cpus=8, gpus=gpus)
    rows = Rows.of(manifest_rows(uris, number))
    machine = parse_machine(f"nodes=1,cpus=8,gpus={gpus},memory=64")
    seeds = seeds_plan(row_bytes=MAP_BYTES)
    if step == "seeds":
        run(seeds, rows, out, machine)
        return
    plan = masks_plan(seeds.artifact(storage.join(out, "seeds")))
    maps = MakeMaps()
    assert plan.reuse is not None
    fetch, decode = FetchImages(classes=CLASSES), DecodeImages(max_side=1024)
    plan = replace(
        plan,
        stages=(fetch, decode, maps, Walk(), FinishMasks(row_bytes=MASK_BYTES)),
        reuse=(maps, plan.reuse[1]),
        schema=pa.schema([*MASKS, *MOMENTS]),
    )
    begun = time.perf_counter()
    run(plan, rows, out, machine)
    seconds = time.perf_counter() - begun
    ray.shutdown()
    shards = storage.join(plan.artifact(out).uri, SHARDS)
    tell(seconds, read_shards(shards, columns=["image_id", *MOMENTS.names], schema=plan.schema))


def run(plan: Plan, rows: Rows, out: str, machine: Machine) -> None:
    """Runs a plan with the pools that raypipe plans for it."""
    pools, planned = plan_pools(plan, machine, RunConfig(manifest="-", out="-"))
    run_stream(plan, rows, Settings(out=out, budget=Budget()), lambda: list(zip(pools, planned.pools, strict=True)))


if __name__ == "__main__":
    typer.run(main)
