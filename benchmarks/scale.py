"""How raypipe runs on sets and clusters that aren't there: its own driver and ledger code, in virtual time.

    PYTHONPATH=. python benchmarks/scale.py run --rows 10000000 --nodes 64
    PYTHONPATH=. python benchmarks/scale.py run --rows 100000000 --real-parts 40    # the others repeat these
    PYTHONPATH=. python benchmarks/scale.py overhead    # what Ray Data's driver costs here
    PYTHONPATH=. python benchmarks/scale.py check       # 20,000 rows, beside the real thing

`simulator/` says what is real and what is a model; nothing else should run beside it.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pyarrow as pa
import ray
import typer
from measure import machine, table
from simulator import overhead as ray_data
from simulator import real
from simulator.setting import Setting
from simulator.simulation import OUT, Leg, Simulation
from simulator.store import Speed, parquet_seconds
from simulator.workload import masks_plan, seeds_plan
from stores import counted_s3

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def run(
    rows: Annotated[int, typer.Option(min=1, help="rows of the manifest, in parts of 50,000")] = 10_000_000,
    nodes: Annotated[int, typer.Option(min=1, help="with 16 CPUs and one GPU each")] = 64,
    card: Annotated[float, typer.Option(help="seconds of an image on a GPU")] = 0.1,
    block: Annotated[float, typer.Option(help="seconds of Ray Data's driver for a block and an operator")] = 0.010,
    real_parts: Annotated[int | None, typer.Option(help="parts that are run for real, about; all if not given")] = None,
) -> None:
    """Seeds, which are killed after half of the rows, resumed, and started again when all is done; then masks."""
    pa.set_cpu_count(1)
    print(machine(), end="\n\n")
    begun = time.perf_counter()
    write, read = parquet_seconds()
    setting = Setting(nodes=nodes, card=card, block=block)
    speed = Speed(parquet_write=write, parquet_read=read)
    print(f"{setting}\n\n{speed}\n")
    with Simulation(setting, rows=rows, speed=speed, real_parts=real_parts) as simulation:
        opened = simulation.open()
        print(f"{rows:,} rows, {len(simulation.manifest.parts)} parts; to find them takes {opened:.1f} s", end="\n\n")
        legs = [simulation.run(seeds_plan(), kill=rows / 2, name="seeds, killed at 50 %")]
        print(requests_of(legs[-1]), end="\n\n", flush=True)
        for name in ("seeds, resumed", "seeds, all done"):
            legs.append(simulation.run(seeds_plan(), name=name))
            print(requests_of(legs[-1]), end="\n\n", flush=True)
        legs.append(simulation.run(masks_plan(seeds_plan().artifact(OUT)), name="masks"))
        print(requests_of(legs[-1]), end="\n\n", flush=True)
        for name, times in simulation.counts.items():
            kinds = dict(enumerate(np.bincount(times)))
            print(f"{name}: rows by how often they were written: {kinds}", end="\n\n")
    print(times_of(legs), driver_of(legs), sep="\n\n")
    print(f"\nsimulated in {time.perf_counter() - begun:.0f} s, of which {time.process_time():.0f} s on a core")


def times_of(legs: Sequence[Leg]) -> str:
    """When things happened."""
    header = ("run", "rows computed", "first block read", "first batch", "whole run", "GPU work", "run / GPU work")
    lines = []
    for leg in legs:
        seen = leg.seen
        first = ["" if moment is None else f"{moment - seen.begun:.1f} s" for moment in (seen.first_read, seen.first)]
        work = (f"{leg.work:,.0f} s", f"{leg.seconds / leg.work:.3f}") if seen.rows else ("", "")
        ends = (f"{100 * leg.idle:.1f} %", f"{leg.tail:.0f} s") if seen.rows and leg.summary else ("", "")
        lines.append((leg.name, f"{seen.rows:,}", *first, f"{leg.seconds:,.1f} s", *work, *ends))
    return table((*header, "GPUs idle", "after the last GPU's work"), lines)


def driver_of(legs: Sequence[Leg]) -> str:
    """What the driver did."""
    header = ("run", "blocks", "raypipe's thread", "Ray Data's thread", "busy", "what it keeps", "process grows by")
    lines = [
        (
            leg.name,
            f"{leg.seen.blocks:,}",
            f"{leg.cpu:.1f} s",
            f"{leg.scheduling:,.0f} s",
            f"{100 * (leg.cpu + leg.scheduling) / leg.seconds:.0f} %",
            f"{leg.objects / 1e6:.2f} MB",
            f"{leg.growth / 1e6:.0f} MB",
        )
        for leg in legs
    ]
    return table(header, lines)


def requests_of(leg: Leg) -> str:
    """Requests and bytes by what makes them."""
    assert leg.requests is not None
    assert leg.bytes is not None
    kinds = ("GET", "PUT", "LIST", "HEAD", "DELETE")
    requests, sizes = leg.requests.copy(), leg.bytes
    for process, kind in list(requests):
        if process == "lease":  # its thread runs in real time: a beat every two seconds
            requests[process, kind] = round(leg.seconds / 2)
    lines = []
    for process in sorted({process for process, _ in requests}):
        numbers = [requests[process, kind] for kind in kinds]
        moved = [sizes[process, kind] for kind in ("GET", "PUT")]
        lines.append((process, *(f"{number:,}" for number in numbers), *(f"{size / 1e9:,.3f} GB" for size in moved)))
    return table((leg.name, *kinds, "read", "written"), lines)


@app.command()
def overhead() -> None:
    """Empty blocks of two sizes through three pools on a local Ray: the fit, and whether longer runs cost more."""
    print(machine(), end="\n\n")
    ray_data.start_ray(cpus=16, gpus=4)
    runs = ray_data.measure()
    ray.shutdown()
    header = ("blocks", "rows of each", "first block", "seconds", "the driver's CPU")
    lines = [
        (each.blocks, each.rows, f"{each.first:.1f} s", f"{each.seconds:.1f}", f"{each.cpu:.1f} s") for each in runs
    ]
    print(table(header, lines), end="\n\n")
    header = ("time", "start", "a block and operator", "a row and operator", "largest error")
    lines = []
    for name, words in (("seconds", "wall, 2 cores with all workers"), ("cpu", "CPU of the driver")):
        found = ray_data.fit(runs, name)
        each = (f"{1e3 * found.block:.2f} ms", f"{1e6 * found.row:.1f} µs", f"{100 * found.error:.0f} %")
        lines.append((words, f"{found.start:.1f} s", *each))
    print(table(header, lines), end="\n\n")
    for name in ("seconds", "cpu"):
        for blocks, rows, slope in ray_data.slopes(runs, name):
            print(f"{name}: up to {blocks} blocks of {rows} rows, {1e3 * slope:.2f} ms a block and operator")


@app.command()
def check(
    rows: Annotated[int, typer.Option(min=real.PARTS, help="rows of both")] = real.ROWS,
    block: Annotated[float, typer.Option(help="seconds of Ray Data's driver for a block and an operator")] = 0.010,
    start: Annotated[float, typer.Option(help="seconds until an actor is up on this machine")] = 8.0,
) -> None:
    """Runs seeds of small images with stages that sleep on Ray and moto, and the same in virtual time."""
    pa.set_cpu_count(1)
    print(machine(), end="\n\n")
    with counted_s3(latency=real.LATENCY) as proxy:
        found, request = real.run_real(proxy, rows=rows)
    said, leg = real.simulate(rows=rows, request=request, block=block, start=start)
    print(f"{rows:,} rows in blocks of {rows // leg.seen.blocks}; a request takes {1e3 * request:.0f} ms\n")
    both = Counter(found.requests) | Counter(said.requests)
    pairs = [("seconds", found.seconds, said.seconds)]
    pairs += [(kind, found.requests.get(kind, 0), said.requests.get(kind, 0)) for kind in sorted(both)]
    pairs.append(("all requests", sum(found.requests.values()), sum(said.requests.values())))
    lines = [
        (name, f"{one:,.0f}", f"{two:,.0f}", f"{100 * (two / one - 1):+.1f} %" if one else "")
        for name, one, two in pairs
    ]
    print(table(("", "real", "simulated", "difference"), lines))
    wrong = [name for name, one, two in (pairs[0], pairs[-1]) if abs(two / one - 1) > 0.2]
    if wrong:
        print(f"\n{' and '.join(wrong)}: more than 20 % apart")
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
