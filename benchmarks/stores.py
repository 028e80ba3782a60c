"""Servers on this machine for benchmarks, and the proxy that spoils requests to one."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from measure import ROOT

PROXY = ROOT / "tests" / "servers" / "faulty_proxy.py"


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start_server(command: list[str], port: int) -> subprocess.Popen[str]:
    """Starts a server and waits until it listens."""
    process = subprocess.Popen(command, text=True, stderr=subprocess.DEVNULL)  # noqa: S603 - ours
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    raise RuntimeError(f"{command} doesn't listen on {port}")


def start_moto() -> tuple[subprocess.Popen[str], str]:
    """Starts an S3 server whose keys are in the environment from now on; its process and its URL."""
    port = free_port()
    moto = start_server([str(Path(sys.executable).parent / "moto_server"), "-p", str(port)], port)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= keys
    return moto, f"http://127.0.0.1:{port}"


@dataclass
class Proxy:
    """The proxy before the S3 server; None upstream: there is no S3."""

    upstream: str | None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def start(self, rate: float = 0.0, *, seed: int = 0, latency: float = 0.0) -> None:
        """Starts it, with a share of spoiled requests, which of them by a seed, and seconds that each waits."""
        if self.upstream is None:
            return
        command = [sys.executable, str(PROXY), "--port", str(self.port), "--upstream", self.upstream]
        command += ["--rate", str(rate), "--seed", str(seed), "--latency", str(latency)]
        self.process = start_server(command, self.port)

    def stop(self) -> None:
        """Ends it and adds up its counts."""
        if self.process is None:
            return
        for name, number in self.now().items():
            self.counts[name] = self.counts.get(name, 0) + number
        self.process.terminate()
        self.process.wait(timeout=60)
        self.process = None

    def total(self, name: str) -> int:
        """One of its counts, those of earlier starts included."""
        return self.counts.get(name, 0) + self.now().get(name, 0)

    def now(self) -> dict[str, int]:
        """Its counts since it was started."""
        return self._ask("counts")

    def requests(self) -> dict[str, int]:
        """Requests since it was started, by kind: GET, HEAD, PUT, POST, DELETE and LIST."""
        return self._ask("requests")

    def _ask(self, what: str) -> dict[str, int]:
        if self.process is None:
            return {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/{what}", timeout=10) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


@contextmanager
def counted_s3(*, latency: float = 0.0) -> Iterator[Proxy]:
    """Moto behind a proxy that counts and lets each request wait; the environment names it as S3's endpoint."""
    moto, url = start_moto()
    proxy = Proxy(url)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"
    try:
        proxy.start(latency=latency)
        yield proxy
    finally:
        proxy.stop()
        moto.terminate()
        moto.wait(timeout=60)


def num_spoiled(counts: Mapping[str, int]) -> int:
    """Requests that failed or were held up, of a proxy's counts."""
    return sum(number for kind, number in counts.items() if kind not in ("passed on", "images read", "bytes read"))


def restart(server: psutil.Process, *, after: float) -> psutil.Process:
    """SIGKILL to a server, and some seconds later the same command again: the new process, which outlives this one."""
    command, folder, environment = server.cmdline(), server.cwd(), server.environ()
    server.kill()
    time.sleep(after)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return psutil.Popen(command, cwd=folder, env=environment, start_new_session=True, **quiet)
