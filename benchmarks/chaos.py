"""A full run under random faults: it ends with the undisturbed run's masks, or the seed is printed.

    python benchmarks/chaos.py [--seed 17 ...] [--elastic] [--minutes 6] [--logs FOLDER]

Small synthetic images, a cluster of a head that only leads and two nodes, everything in a bucket of moto behind a proxy
that spoils requests or is away. First the run without faults, then, for each seed, the run under the faults of
`disorder/schedule.py` until it ends or the minutes are over; the command is given again each time the driver is killed.
With a fixed width of the trainings, weights, seeds, masks and quarantine are equal. With `--elastic` trainings go on
with one worker while nodes for two are missing, which rounds otherwise: there, every row is accounted for.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import fsspec
import typer
from disorder.outcome import Outcome, differences, read_outcome, unaccounted, wrongly_quarantined
from disorder.schedule import Strike, plan_strikes
from disorder.strikes import Command, Striker, Struck
from faults import add_node, start_driver
from measure import machine, table
from ray.cluster_utils import Cluster
from stores import counted_s3, free_port

from raypipe import storage
from raypipe.streams.job import GPU_DEVICE
from raypipe.synthetic.generate import generate

LIMIT = 1200.0
"""Seconds after which a run is given up."""

CONFIG = """preset: demo
manifest: {base}/data/manifest.parquet
out: {base}/out
images: {{ max_side: 96 }}
classifier: {{ epochs: 6, crop_size: 64, long_side: [64, 96] }}
affinity: {{ epochs: 4, batch_size: 16, crop_size: 64 }}
cams: {{ scales: [1.0] }}
cluster:
  {{ rows_per_block: 8, network_actors: 2, cpu_actors: 2,
    train_workers: 2, gpus_per_train_worker: 0, state_minutes: 0.05{elastic} }}
"""


class NotEnded(RuntimeError):  # noqa: N818 - says what is wrong
    """A run failed, or didn't end in time."""


@dataclass(frozen=True)
class Setting:
    """Where everything is."""

    base: str
    config: str
    logs: Path
    striker: Striker
    image_ids: set[str]
    """Of the manifest: each step takes all of them."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    outcome: Outcome
    seconds: float
    faults: list[Struck]
    num_starts: int
    """Of the command."""


@contextmanager
def make_setting(num_images: int, logs: Path, *, elastic: bool) -> Iterator[Setting]:
    """Storage, images and cluster."""
    with counted_s3() as proxy:
        base = f"s3://chaos-{os.getpid()}"
        fsspec.filesystem("s3").mkdir(base)
        manifest = generate(storage.join(base, "data"), num_images=num_images, sizes=(64, 96))
        # Ray Train asks the dashboard whether its controller lives; left to find one, it may ask another Ray's.
        dashboard = free_port()
        os.environ |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", GPU_DEVICE: "cpu"}
        head = {"num_cpus": 0, "object_store_memory": 150 * 2**20, "include_dashboard": True}
        head |= {"dashboard_port": dashboard, "dashboard_agent_listen_port": free_port()}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            # Such a GPU is a logical resource of Ray: what holds it computes on the CPU, in actors as on real ones.
            add = partial(add_node, cluster, num_gpus=1)
            for _ in range(2):
                add()
            os.environ |= {"RAY_ADDRESS": cluster.address}
            config = logs / "config.yaml"
            config.write_text(CONFIG.format(base=base, elastic=", min_train_workers: 1" if elastic else ""))
            image_ids = set(manifest.table["image_id"].to_pylist())
            yield Setting(base, str(config), logs, Striker(cluster, add, proxy), image_ids)
        finally:
            cluster.shutdown()


def run(setting: Setting, name: str, strikes: Sequence[Strike], *, seconds: float) -> Ended:
    """One run, under faults that begin within some seconds.

    Raises:
        NotEnded: if it fails or doesn't end.
    """
    out, log = storage.join(setting.base, name), setting.logs / f"{name}.log"
    begin = partial(start_driver, setting.config, "run", out, log=log)
    command, faults, started = Command(begin, begin()), list[Struck](), time.monotonic()
    try:
        for strike in strikes:
            if command.ends_within(strike.calm) or time.monotonic() - started > seconds:
                break
            at = time.monotonic() - started
            faults.append(Struck(at, strike, setting.striker.strike(strike, command)))
            typer.echo(f"{name}: {faults[-1]}", err=True)
        if not command.ends_within(LIMIT - (time.monotonic() - started)):
            raise NotEnded(f"{name}: the run didn't end within {LIMIT:.0f} s; {in_words(faults)}; its log is {log}")
        if status := command.driver.returncode:
            raise NotEnded(f"{name}: the run ended with {status}; {in_words(faults)}; its log is {log}")
    finally:
        command.driver.kill()
        command.driver.wait(timeout=60)
    return Ended(read_outcome(out), time.monotonic() - started, faults, command.num_starts)


def in_words(faults: Sequence[Struck]) -> str:
    """What struck, in the order of time."""
    return "; ".join(map(str, faults))


def judge(setting: Setting, undisturbed: Outcome, disturbed: Outcome, *, elastic: bool) -> list[str]:
    """What is wrong with a run, in words."""
    compare = wrongly_quarantined if elastic else differences
    return unaccounted(disturbed, setting.image_ids) + compare(undisturbed, disturbed)


def main(
    seed: Annotated[
        list[int] | None, typer.Option(help="of the faults; repeat for several; drawn if none is given")
    ] = None,
    elastic: Annotated[bool, typer.Option(help="trainings of 1 or 2 workers; accounts are checked alone")] = False,
    minutes: Annotated[float, typer.Option(min=0.1, help="for which faults strike")] = 6,
    num_images: Annotated[int, typer.Option(min=16)] = 96,
    logs: Annotated[Path | None, typer.Option(help="folder of the drivers' logs; kept")] = None,
) -> None:
    """Prints a row of benchmarks/chaos.md for each seed; 1 if one run ended otherwise."""
    seeds = seed or [random.SystemRandom().randrange(10**6)]
    logs = logs or Path(tempfile.mkdtemp(prefix="chaos-"))
    logs.mkdir(parents=True, exist_ok=True)
    typer.echo(
        f"{machine()}\n\nseeds {', '.join(map(str, seeds))}; the drivers' logs are in {logs}, Ray's in /tmp/ray\n"
    )
    lines, wrong = [], []
    with make_setting(num_images, logs, elastic=elastic) as setting:
        undisturbed = run(setting, "undisturbed", (), seconds=0)
        if found := unaccounted(undisturbed.outcome, setting.image_ids):
            raise NotEnded(f"undisturbed: {found}")
        lines.append(("none", "", "", 1, f"{undisturbed.seconds:.0f} s", "", undisturbed.outcome.digest))
        for number in seeds:
            name = f"seed-{number}"
            try:
                ended = run(setting, name, plan_strikes(number, seconds=60 * minutes), seconds=60 * minutes)
            except NotEnded as error:
                found = [str(error)]
                lines.append((number, "", "", "", "", "FAILED", ""))
            else:
                found = judge(setting, undisturbed.outcome, ended.outcome, elastic=elastic)
                result = "DIFFERENT" if found else ("accounted for" if elastic else "equal")
                num_hit = sum(fault.hit is not None for fault in ended.faults)
                lines.append(
                    (
                        number,
                        num_hit,
                        in_words(ended.faults),
                        ended.num_starts,
                        f"{ended.seconds:.0f} s",
                        result,
                        ended.outcome.digest,
                    )
                )
            wrong += [f"seed {number}: {each}" for each in found]
            typer.echo(lines[-1], err=True)
    header = (
        "seed",
        "faults that hit",
        "what and when",
        "starts of the command",
        "time",
        "result",
        "digest of the masks",
    )
    typer.echo(table(header, lines))
    if wrong:
        again = " ".join(f"--seed {number}" for number in seeds)
        typer.echo("\n".join([*wrong, f"The same once more: python benchmarks/chaos.py {again}"]), err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
