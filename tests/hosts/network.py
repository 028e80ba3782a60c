"""Hosts on one machine: each has its own address, name, `/etc/hosts`, processes, shared memory and disk.

A host is a network, mount, process and name space with a wire to a bridge. What runs in it ends with its first process.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
import pytest

NET = "10.213.77"
"""The first three bytes of all addresses."""

BRIDGE = "rph0"
"""Name of the bridge, which has the first address and stands for the network outside."""

GATEWAY = f"{NET}.1"
"""Address at which hosts find what runs outside of them."""

DISK = Path("/mnt/raypipe-host")
"""Folder that is a disk of its own on each host."""

SPILL = DISK / "spill"
"""Folder on it that Ray spills objects to."""

_INIT = """
set -e
hostname {name}
mount -t tmpfs -o size=1g tmpfs /dev/shm
mkdir -p /tmp/ray && mount -t tmpfs -o size=1g tmpfs /tmp/ray
mount -t tmpfs -o size=512m tmpfs {disk}
mkdir {spill}
touch {disk}/ready
set +e
while :; do
  sleep 3600 &
  wait
done
"""
"""What the first process of a host does: it is a bash, which also buries the orphans of the host."""


@dataclass
class Host:
    """One host."""

    name: str
    address: str
    wire: str
    """The end of its wire at the bridge."""
    init: int
    """Id of its first process."""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *words: object, cwd: Path = Path("/")) -> list[str]:
        """A command that runs on the host."""
        spaces = ["--mount", "--net", "--pid", "--uts", f"--wdns={cwd}"]
        return ["nsenter", "--target", str(self.init), *spaces, *map(str, words)]

    def run(self, *words: object, timeout: float = 60) -> str:
        """Runs a command on the host; what it prints."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout, check=True)
        return done.stdout

    def start(self, *words: object, env: Mapping[str, str], log: IO[bytes], cwd: Path) -> subprocess.Popen[bytes]:
        """Starts a command on the host."""
        command = self.command(*words, cwd=cwd)
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=dict(env), **streams)
        self.running.append(process)
        return process

    def cut(self) -> None:
        """Nothing gets in or out any more, and nobody is told: as where a switch far away fails."""
        _ip("link", "set", "dev", self.wire, "nomaster")

    def mend(self) -> None:
        """The opposite."""
        _ip("link", "set", "dev", self.wire, "master", BRIDGE)

    def lose_packets(self, share: float) -> None:
        """Loses a share of all packets that come in, and of those that go out."""
        drop = ["-m", "statistic", "--mode", "random", "--probability", share, "-j", "DROP"]
        for chain, side in (("INPUT", "-i"), ("OUTPUT", "-o")):
            self.run("iptables", "-A", chain, side, "eth0", *drop)

    def kill(self, name: str) -> None:
        """SIGKILL to the host's processes of that name but the first one."""
        self.run("pkill", "-KILL", "-x", name)

    def kill_all(self) -> None:
        """SIGKILL to all that runs on the host, which stays."""
        self.run("bash", "-c", "kill -KILL -1")


def skip_where_impossible() -> None:
    """Skips the test on machines that can't make hosts."""
    if os.geteuid() != 0:
        pytest.skip("hosts are made by root alone")
    for tool in ("ip", "nsenter", "unshare", "iptables"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: iproute2, util-linux and iptables make hosts")
    if _try("ip", "netns", "add", "rph-probe") is not None:
        pytest.skip("this kernel or container gives no network namespaces")
    _try("ip", "netns", "delete", "rph-probe")


@contextmanager
def make_bridge() -> Iterator[None]:
    """The network that hosts are put in."""
    _try("ip", "link", "delete", BRIDGE)  # of a test that was killed
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield
    finally:
        _ip("link", "delete", BRIDGE)


@contextmanager
def make_hosts(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """Hosts with a wire to the bridge, by name."""
    with ExitStack() as stack:
        addresses = {name: f"{NET}.{number}" for number, name in enumerate(names, start=11)}
        yield {name: stack.enter_context(_make_host(name, addresses)) for name in names}


@contextmanager
def _make_host(name: str, addresses: Mapping[str, str]) -> Iterator[Host]:
    space, wire, files = f"rph-{name}", f"rph-{name}", Path("/etc/netns", f"rph-{name}")
    DISK.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for words in (["link", "delete", wire], ["netns", "delete", space]):
            _try("ip", *words)  # of a test that was killed
        _ip("netns", "add", space)
        stack.callback(_try, "ip", "netns", "delete", space)
        _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space)
        stack.callback(_try, "ip", "link", "delete", wire)
        _ip("link", "set", wire, "master", BRIDGE, "up")
        for words in (
            # What knows the address from the last host that had it needn't ask again.
            [
                "link",
                "set",
                "eth0",
                "address",
                "02:00:" + ":".join(f"{int(x):02x}" for x in addresses[name].split(".")),
            ],
            ["link", "set", "lo", "up"],
            ["address", "add", f"{addresses[name]}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", GATEWAY],
        ):
            _ip("-n", space, *words)
        files.mkdir(parents=True, exist_ok=True)  # `ip netns exec` puts what is in it over /etc
        stack.callback(shutil.rmtree, files)
        lines = ["127.0.0.1 localhost", *(f"{address} {other}" for other, address in addresses.items())]
        (files / "hosts").write_text("\n".join(lines) + "\n")
        (files / "resolv.conf").write_text("# No name server: what isn't in /etc/hosts isn't there.\n")
        spaces = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--mount", "--uts"]
        script = _INIT.format(name=name, disk=DISK, spill=SPILL)
        with_tests = ["setpriv", "--pdeathsig", "KILL"]  # so a host ends also where the tests are killed
        first = subprocess.Popen(
            [*with_tests, "ip", "netns", "exec", space, *spaces, "bash", "-c", script], stdin=subprocess.DEVNULL
        )
        stack.callback(first.wait, timeout=30)
        stack.callback(first.kill)
        host = Host(name, addresses[name], wire, _only_child(first))
        stack.callback(_end, host)
        _wait_for_file(host, DISK / "ready")
        yield host


def _end(host: Host) -> None:
    with suppress(ProcessLookupError):
        os.kill(host.init, 9)  # and with it the kernel ends all others of the host
    for process in host.running:
        process.wait(timeout=60)


def _only_child(process: subprocess.Popen[bytes]) -> int:
    for _ in range(100):
        if children := psutil.Process(process.pid).children():
            return int(children[0].pid)
        time.sleep(0.1)
    raise TimeoutError("a host has no first process")


def _wait_for_file(host: Host, path: Path) -> None:
    for _ in range(100):
        if Path(f"/proc/{host.init}/root{path}").exists():
            return
        time.sleep(0.1)
    raise TimeoutError(f"host {host.name} isn't ready")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)


def _try(*words: str) -> str | None:
    """Why a command failed; None where it didn't."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    return done.stderr or "failed" if done.returncode else None
