"""Ray on hosts: a head that leads, workers on the other hosts, and a driver on the head's."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hosts.network import SPILL, Host, make_hosts

from raypipe import storage
from raypipe.data.shards import read_shards
from raypipe.schema import MASKS, QUARANTINE

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PORT = 6379
TOKEN = "0123456789" * 4

SERVICE = 'for _ in 1 2 3 4 5; do "$@"; sleep 1; done'
"""What keeps Ray on a host. It ends where it was taken for dead; and where its agents take longer than 20 seconds to
start, as on a busy machine."""


@dataclass
class Driver:
    """A raypipe command on the head."""

    process: subprocess.Popen[bytes]
    out: str
    log: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    @property
    def seconds(self) -> float:
        """Since it started."""
        return time.monotonic() - self.started

    def warnings(self) -> list[str]:
        """Lines in which raypipe says what is wrong."""
        return [line for line in self.text.splitlines() if "raypipe" in line or "sick" in line]

    def finish(self, *, timeout: float) -> None:
        """Waits until it has succeeded."""
        code = self.process.wait(timeout=timeout)
        assert code == 0, self.text[-6000:]

    def wait_until(self, found: Callable[[], bool], *, timeout: float = 120) -> None:
        """Waits while it runs."""
        end = time.monotonic() + timeout
        while not found():
            assert self.process.poll() is None, self.text[-6000:]
            assert time.monotonic() < end, self.text[-6000:]
            time.sleep(0.2)

    def wait_for_rows(self, stream: str) -> None:
        """Waits until the first rows of a stream are written."""
        self.wait_until(lambda: bool(storage.list_files(f"{self.out}/{stream}", suffix=".parquet")))


@dataclass
class RayHosts:
    """A Ray cluster on hosts."""

    hosts: dict[str, Host]
    env: dict[str, str]
    logs: Path
    dashboard: bool
    """Whether the head has one, which takes seconds: jobs are submitted to it."""

    @property
    def head(self) -> Host:
        return self.hosts["head"]

    def start_ray(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """`ray start` on a host, again and again: as its service manager would keep it."""
        host = self.hosts[name]
        if name == "head":
            dashboard = f"--include-dashboard={str(self.dashboard).lower()}"
            words: list[object] = [
                "--head",
                "--port",
                PORT,
                dashboard,
                "--dashboard-host",
                "127.0.0.1",
                "--num-cpus",
                0,
            ]
        else:
            words = ["--address", f"{self.head.address}:{PORT}", "--num-cpus", 2]
        words += ["--node-ip-address", host.address, "--object-store-memory", 100 * 2**20]
        words += ["--object-spilling-directory", SPILL]
        command = ["bash", "-c", SERVICE, "service", BIN / "ray", "start", "--block", *words]
        with (self.logs / f"ray-{name}.log").open("ab") as log:
            host.start(*command, env=self.env | dict(env or {}), log=log, cwd=REPOSITORY)

    def wait_for_nodes(self, number: int, *, timeout: float = 180) -> None:
        """Until so many nodes are there, the head among them."""
        command = self.head.command(BIN / "ray", "status", "--address", f"{self.head.address}:{PORT}")
        end, status = time.monotonic() + timeout, ""
        while time.monotonic() < end:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=self.env)
            status = done.stdout + done.stderr
            if status.partition("Active:")[2].partition("Pending:")[0].count("node_") >= number:
                return
            time.sleep(1)
        logs = "\n".join(path.read_text()[-1500:] for path in self.logs.glob("ray-*.log"))
        raise TimeoutError(f"{number} nodes didn't come; the last status:\n{status[-1500:]}\n{logs}")

    def hoard(self, script: str, name: str, *, megabytes: int) -> None:
        """Runs a script on the head that fills a host's object store, until it says that it has."""
        path = self.logs / "hoard.log"
        words = [BIN / "python", "-c", script, self.hosts[name].address, megabytes // 5]
        env = self.env | {"RAY_ADDRESS": f"{self.head.address}:{PORT}"}
        with path.open("wb") as log:
            process = self.head.start(*words, env=env, log=log, cwd=REPOSITORY)
        for _ in range(120):
            if "full" in path.read_text():
                return
            assert process.poll() is None, path.read_text()
            time.sleep(0.5)
        raise TimeoutError(path.read_text())

    def start(self, *words: str, out: str, env: Mapping[str, str] | None = None) -> Driver:
        """Starts a raypipe command on the head."""
        path = self.logs / f"driver-{len(list(self.logs.glob('driver-*')))}.log"
        address = f"{self.head.address}:{PORT}"
        command = [BIN / "python", "jobs/submit.py", *words, f"out={out}", f"cluster.address={address}"]
        with path.open("wb") as log:
            process = self.head.start(*command, env=self.env | dict(env or {}), log=log, cwd=REPOSITORY)
        return Driver(process, out, path)


@contextmanager
def start_hosts(
    names: tuple[str, ...],
    s3: Mapping[str, str],
    logs: Path,
    *,
    env: Mapping[str, Mapping[str, str]] | None = None,
    prepare: Callable[[dict[str, Host]], None] | None = None,
    dashboard: bool = False,
) -> Iterator[RayHosts]:
    """A cluster of a head and workers.

    Args:
        names: of the workers' hosts.
        s3: the environment that names the S3 server.
        logs: folder for what the processes print.
        env: what the environment of a host's Ray differs in, by the host's name.
        prepare: is called with the hosts before Ray starts on them.
        dashboard: whether jobs can be submitted to the head.
    """
    common = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    common |= {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with make_hosts(["head", *names]) as hosts:
        if prepare is not None:
            prepare(hosts)
        cluster = RayHosts(hosts, common | dict(s3), logs, dashboard)
        cluster.start_ray("head", (env or {}).get("head"))
        _wait_for_port(cluster.head.address)
        for name in names:
            cluster.start_ray(name, (env or {}).get(name))
        cluster.wait_for_nodes(1 + len(names))
        yield cluster


def _wait_for_port(address: str) -> None:
    for _ in range(900):
        with suppress(OSError), socket.create_connection((address, PORT), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {address}:{PORT}")


def mask_digests(out: str) -> dict[str, str]:
    """Digest of each image's mask and confidence, by its id."""
    (folder,) = {
        uri.split("/shards/")[0] for uri in storage.list_files(f"{out}/masks", suffix=".parquet") if "/shards/" in uri
    }
    rows = read_shards(f"{folder}/shards", columns=["image_id", "mask", "confidence"], schema=MASKS).to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: hashlib.sha256(row["mask"] + row["confidence"]).hexdigest() for row in rows}


def num_quarantined(out: str) -> int:
    """Rows in quarantine, in all streams."""
    folders = {
        uri.split("/quarantine/")[0] for uri in storage.list_files(out, suffix=".parquet") if "/quarantine/" in uri
    }
    return sum(read_shards(f"{folder}/quarantine", schema=QUARANTINE).num_rows for folder in folders)
