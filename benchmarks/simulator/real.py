"""The simulator's small end beside the real thing: Ray, S3 as moto has it, and stages that sleep."""

import time
from dataclasses import dataclass
from statistics import median

import fsspec
import numpy as np
import ray
from measure import ROOT
from PIL import Image
from stores import Proxy

from raypipe import storage
from raypipe.cluster.machines import parse_machine
from raypipe.config import Budget, RunConfig
from raypipe.data.images import encode_png
from raypipe.data.parts import open_manifest, write_parts
from raypipe.pipelines.context import plan_pools
from raypipe.streams.run import Settings, run_stream
from simulator.overhead import start_ray
from simulator.setting import Setting
from simulator.simulation import Leg, Simulation
from simulator.store import Speed
from simulator.workload import CLASSES, manifest_rows, rows_of, seeds_plan

ROWS, PARTS, FILES = 20_000, 4, 64
LATENCY = 0.025
CARD = 0.05
ROW_BYTES = 2_000
MACHINE = {"nodes": 1, "cpus": 8, "gpus": 4, "memory": 64}


@dataclass(frozen=True)
class Found:
    """What a run took, the manifest's opening included."""

    seconds: float
    requests: dict[str, int]


def write_set(*, rows: int) -> None:
    """Writes images of 64 pixels, which rows share, and a manifest."""
    fsspec.filesystem("s3").mkdir("bucket")
    rng = np.random.default_rng(0)
    for index in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((64, 64), Image.Resampling.BICUBIC))
        storage.write_bytes_atomic(f"s3://bucket/images/{index}.png", encode_png(pixels))
    size = rows // PARTS
    tables = (manifest_rows(part * size, size) for part in range(PARTS))
    uris = [f"s3://bucket/images/{index % FILES}.png" for index in range(size)]
    named = (table.set_column(1, "image_uri", [uris]) for table in tables)
    write_parts(named, CLASSES, "s3://bucket/manifest")


def one_request() -> float:
    """Seconds of a small GET, as this machine has it."""
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        storage.read_bytes("s3://bucket/images/0.png")
        times.append(time.perf_counter() - begun)
    return median(times)


def run_real(proxy: Proxy, *, rows: int) -> tuple[Found, float]:
    """Runs seeds for real; returns what it took, and the seconds of a request."""
    write_set(rows=rows)
    request = one_request()
    start_ray(cpus=MACHINE["cpus"], gpus=MACHINE["gpus"], folders=(str(ROOT), str(ROOT / "benchmarks")))
    plan = seeds_plan(card=CARD, row_bytes=ROW_BYTES)
    machine = parse_machine(",".join(f"{name}={value}" for name, value in MACHINE.items()))
    pools, planned = plan_pools(plan, machine, RunConfig(manifest="-", out="-"))
    before = proxy.requests()
    begun = time.perf_counter()
    source = rows_of(open_manifest("s3://bucket/manifest").parts)
    settings = Settings(out="s3://bucket/out", budget=Budget())
    _, summary = run_stream(plan, source, settings, lambda: list(zip(pools, planned.pools, strict=True)))
    seconds = time.perf_counter() - begun
    ray.shutdown()
    assert summary.num_finished == rows, summary
    after = proxy.requests()
    return Found(seconds, {kind: number - before.get(kind, 0) for kind, number in after.items()}), request


def simulate(*, rows: int, request: float, block: float, start: float) -> tuple[Found, Leg]:
    """The same in virtual time."""
    setting = Setting(**MACHINE, card=CARD, core=0.0, image_bytes=4_000, failing=0.0, block=block, start=start)
    speed = Speed(first_byte=request)
    with Simulation(
        setting, rows=rows, speed=speed, rows_per_part=rows // PARTS, row_bytes={"seeds": ROW_BYTES}
    ) as sim:
        opened = sim.open()
        leg = sim.run(seeds_plan(row_bytes=ROW_BYTES))
    assert leg.requests is not None
    requests: dict[str, int] = {}
    for (process, kind), number in leg.requests.items():
        beats = leg.seconds / 2 if process == "lease" else number
        requests[kind] = requests.get(kind, 0) + round(beats)
    return Found(opened + leg.seconds, requests), leg
