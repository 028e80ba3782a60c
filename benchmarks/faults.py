"""Faults on a cluster of three raylets: the same masks whatever is killed, and hardly a row computed twice.

    python benchmarks/faults.py VOC2012 [--num-images 640] [--server http://127.0.0.1:7480 [--server-pid 123]] [--local]

Real photographs at 160 pixels and small random networks. Every object is read through a proxy on loopback that counts,
spoils a share of the requests, or is away for a while. The S3 server is moto unless `--server` names another
(credentials from the environment); with `--server-pid`, its process on this machine, that is killed and started again
where else the proxy goes away. `--local` does without: a folder, and the faults that are none of the storage's.
`--step masks` runs one of the two steps, `--only "worker killed"` one of the faults.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import fsspec
import psutil
import pyarrow as pa
import typer
from measure import ROOT, machine, table, write_random_networks
from ray.cluster_utils import Cluster
from stores import Proxy, free_port, num_spoiled, restart, start_moto

from raypipe import storage
from raypipe import uri as uris
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.rows import ONLY_PART
from raypipe.data.shards import read_shards
from raypipe.formats.voc.read import read_voc
from raypipe.imports.finish import finish
from raypipe.outputs.ledger import QUARANTINED, SHARDS, read_ledger
from raypipe.outputs.records import RECORD_FILE
from raypipe.schema import MASKS, QUARANTINE, SEEDS

SCHEMAS = {"seeds": SEEDS, "masks": MASKS}
ROWS_PER_BLOCK = 8
SECONDS_AWAY = 10
SECONDS_TO_START = 120
"""A node has so many, on a machine with other work."""
LOG = Path(tempfile.gettempdir(), "faults.log")
LIMIT = 400
"""Seconds after which a run is given up."""

CONFIG = """preset: demo
images: {{ max_side: 160 }}
cams: {{ scales: [1.0] }}
trimaps: {{ crf_stride: 2 }}
splits: {{ train: null, masks: null }}
refinement: {{ gate: off }}
manifest: {base}/manifest.parquet
checkpoints: {{ classifier: {base}/classifier, affinity: {base}/affinity }}
cluster: {{ network_actors: 2, rows_per_block: {rows_per_block}, address: {address} }}
"""


@dataclass
class Setting:
    """Where everything is."""

    base: str
    config: str
    num_images: int
    cluster: Cluster
    proxy: Proxy
    server: psutil.Process | None
    """The storage's process, where it may be killed."""


def prepare(base: str, voc: str, num_images: int) -> int:
    """Photographs, manifest and networks at the base; the number of images."""
    manifest = finish(read_voc(uris.absolute(voc), labels="image_labels.csv")).manifest
    rows = manifest.table.to_pylist()[:num_images]
    for row in rows:
        uri = storage.join(base, "images", f"{row['image_id']}.jpg")
        storage.write_bytes_atomic(uri, storage.read_bytes(row["image_uri"]))
        row["image_uri"] = uri
    write_manifest(Manifest.from_rows(rows, manifest.classes), storage.join(base, "manifest.parquet"))
    write_random_networks(base, "tiny", manifest.classes)
    return len(rows)


def start_driver(config: str, step: str, out: str, *, log: Path) -> subprocess.Popen[str]:
    """The command of a step as a process of its own, which appends to a log."""
    command = [sys.executable, str(ROOT / "jobs/submit.py"), step, config, f"out={out}"]
    with log.open("a") as file:
        return subprocess.Popen(command, text=True, stdout=file, stderr=file, cwd=ROOT)  # noqa: S603 - ours


def stream_folder(step: str, out: str) -> str | None:
    """The folder of a step's outputs; None where it hasn't begun."""
    records = storage.list_files(storage.join(out, step), suffix=RECORD_FILE)
    return records[0].rsplit("/", 1)[0] if records else None


def wait_until(condition: Callable[[], bool], driver: subprocess.Popen[str], *, what: str) -> None:
    """Waits for a moment of a run."""
    for _ in range(LIMIT * 4):
        if condition():
            return
        if driver.poll() is not None:
            raise RuntimeError(f"the run ended with {driver.returncode} before {what}")
        time.sleep(0.25)
    raise RuntimeError(f"{what} didn't come within {LIMIT} s")


Fault = Callable[[Setting, subprocess.Popen[str], Callable[[], None]], None]
"""Does harm to a run; calls a function as soon as it is done."""


def kill_worker(_: Setting, __: subprocess.Popen[str], struck: Callable[[], None]) -> None:
    """SIGKILL to a process in which the stages run, of those that this cluster has."""
    for process in psutil.Process().children(recursive=True):
        if "ComputeCams" in " ".join(process.cmdline()):
            process.kill()
            struck()
            return
    raise RuntimeError("no process runs a network")


def kill_node(setting: Setting, _: subprocess.Popen[str], struck: Callable[[], None]) -> None:
    """SIGKILL to a raylet and all on it; another node comes ten seconds later."""
    setting.cluster.remove_node(setting.cluster.worker_nodes.copy().pop(), allow_graceful=False)
    struck()
    time.sleep(SECONDS_AWAY)
    add_node(setting.cluster)


def kill_driver(_: Setting, driver: subprocess.Popen[str], struck: Callable[[], None]) -> None:
    """SIGKILL to the command."""
    driver.kill()
    struck()


def restart_storage(setting: Setting, _: subprocess.Popen[str], struck: Callable[[], None]) -> None:
    """No storage for ten seconds: SIGKILL to it and the same command again, or the proxy before it gone."""
    if setting.server is not None:
        struck()
        setting.server = restart(setting.server, after=SECONDS_AWAY)
        return
    setting.proxy.stop()
    struck()
    time.sleep(SECONDS_AWAY)
    setting.proxy.start()


FAULTS: dict[str, tuple[float, Fault | None]] = {
    "none": (0, None),
    "worker killed": (0, kill_worker),
    "raylet killed, another added": (0, kill_node),
    "driver killed, same command again": (0, kill_driver),
    "storage away for 10 s": (0, restart_storage),
    "5 % of requests spoiled": (0.05, None),
}
"""Name: share of spoiled requests, and what happens when a third is done."""


@dataclass
class Outcome:
    """What a run came to."""

    digest: str
    num_rows: int
    num_unique: int
    num_quarantined: int
    num_in_flight: int | None
    """Rows whose image had been read when the fault had come, and which no shard held just before."""
    images_read: int
    seconds: float
    spoiled: int


def run_once(setting: Setting, step: str, name: str) -> Outcome:
    """One cell of the matrix."""
    rate, fault = FAULTS[name]
    out = storage.join(setting.base, "out", step, name.replace(" ", "-").replace("%", "percent").replace(",", ""))
    setting.proxy.counts = {}
    setting.proxy.start(rate)
    started = time.monotonic()
    driver = start_driver(setting.config, step, out, log=LOG)
    done: list[int] = []
    read: list[int] = []

    def a_third() -> bool:
        done.append(num_done(step, out))
        return done[-1] >= setting.num_images // 3

    if fault is not None:
        wait_until(a_third, driver, what="a third")
        fault(setting, driver, lambda: read.append(setting.proxy.total("images read")))
    status = driver.wait(timeout=LIMIT)
    if fault is kill_driver:
        driver = start_driver(setting.config, step, out, log=LOG)
        status = driver.wait(timeout=LIMIT)
    seconds = time.monotonic() - started
    if status != 0:
        raise RuntimeError(f"{step}, {name}: the run ended with {status}; see {LOG}")
    folder = stream_folder(step, out)
    assert folder is not None
    rows = read_shards(storage.join(folder, SHARDS), schema=SCHEMAS[step])
    quarantined = read_shards(storage.join(folder, QUARANTINED), schema=QUARANTINE).num_rows
    setting.proxy.stop()
    counts = setting.proxy.counts
    return Outcome(
        digest=digest(rows),
        num_rows=rows.num_rows,
        num_unique=len(set(rows["image_id"].to_pylist())),
        num_quarantined=quarantined,
        num_in_flight=read[0] - done[-1] if read else None,
        images_read=counts.get("images read", 0),
        seconds=seconds,
        spoiled=num_spoiled(counts),
    )


def num_done(step: str, out: str) -> int:
    """Rows that are finished so far."""
    folder = stream_folder(step, out)
    if folder is None:
        return 0
    for _ in range(100):
        try:
            return int(read_ledger(folder, ONLY_PART).finished.num_rows)
        except FileNotFoundError:  # the run has folded a file between its listing and its reading
            time.sleep(0.1)
    raise RuntimeError(f"the index of {folder} can't be read while it is folded")


def digest(rows: pa.Table) -> str:
    """Of all columns by image_id, whatever the shards."""
    sha = hashlib.sha256()
    for row in rows.sort_by("image_id").to_pylist():
        sha.update(row_bytes(row))
    return sha.hexdigest()[:12]


def row_bytes(row: dict[str, Any]) -> bytes:
    """All columns of a row."""
    return repr(sorted(row.items())).encode()


def add_node(cluster: Cluster, *, num_gpus: int = 0) -> None:
    """A node for work."""
    # Left to themselves, the agents of all nodes on the machine take the same port, and one gets it.
    agent = free_port()
    memory = 150 * 2**20
    cluster.add_node(
        wait=False, num_cpus=8, num_gpus=num_gpus, object_store_memory=memory, dashboard_agent_listen_port=agent
    )
    cluster.wait_for_nodes(timeout=SECONDS_TO_START)


@contextmanager
def make_setting(
    voc: str, num_images: int, server: str | None, server_pid: int | None, *, local: bool
) -> Iterator[Setting]:
    """Storage, cluster and data."""
    moto, proxy, cluster = None, None, None
    with tempfile.TemporaryDirectory() as folder:
        try:
            base, upstream = f"{folder}/data", None
            if not local:
                if server is None:
                    moto, server = start_moto()
                upstream = server
            proxy = Proxy(upstream)
            if upstream is not None:
                os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"
                base = f"s3://faults-{os.getpid()}"
                proxy.start()
                fsspec.filesystem("s3").mkdir(base)
            number = prepare(base, voc, num_images)
            proxy.stop()
            os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 150 * 2**20})
            for _ in range(2):
                add_node(cluster)
            config = f"{folder}/config.yaml"
            Path(config).write_text(CONFIG.format(base=base, address=cluster.address, rows_per_block=ROWS_PER_BLOCK))
            process = None if server_pid is None else psutil.Process(server_pid)
            yield Setting(base, config, number, cluster, proxy, process)
        finally:
            if cluster is not None:
                cluster.shutdown()
            if proxy is not None:
                proxy.stop()
            if moto is not None:
                moto.kill()


def main(
    voc: Annotated[str, typer.Argument(help="folder in PASCAL VOC's layout with image_labels.csv")],
    num_images: Annotated[int, typer.Option(min=100)] = 640,
    server: Annotated[str | None, typer.Option(help="S3 server to use instead of moto")] = None,
    server_pid: Annotated[int | None, typer.Option(help="its process, to be killed and started again")] = None,
    local: Annotated[bool, typer.Option(help="a folder instead of S3")] = False,
    only: Annotated[list[str] | None, typer.Option(help="faults to try; repeat for several")] = None,
    step: Annotated[list[str] | None, typer.Option(help="seeds or masks; both if not given")] = None,
) -> None:
    """Prints the table of benchmarks/faults.md."""
    print(machine(), end="\n\n", flush=True)
    lines = []
    with make_setting(voc, num_images, server, server_pid, local=local) as setting:
        for name_of_step in step or SCHEMAS:
            undisturbed = None
            for name, (rate, fault) in FAULTS.items():
                if (local and (rate or fault is restart_storage)) or (only and name not in ("none", *only)):
                    continue
                outcome = run_once(setting, name_of_step, name)
                undisturbed = undisturbed or outcome
                again = "" if local else outcome.images_read - setting.num_images
                lines.append(
                    (
                        name_of_step,
                        name,
                        f"{outcome.seconds:.0f} s",
                        f"{outcome.num_rows} + {outcome.num_quarantined} of {setting.num_images}",
                        outcome.num_rows - outcome.num_unique,
                        "" if local or outcome.num_in_flight is None else outcome.num_in_flight,
                        again,
                        outcome.spoiled or "",
                        "equal" if outcome.digest == undisturbed.digest else "DIFFERENT",
                        outcome.digest,
                    )
                )
                print(lines[-1], file=sys.stderr, flush=True)
    header = ("step", "fault", "time", "rows + quarantined", "doubled", "in flight at the fault", "read again")
    print(table((*header, "requests spoiled", "bytes of all rows", "digest"), lines))


if __name__ == "__main__":
    typer.run(main)
