import errno
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import ray
from ray.util.state import list_nodes

from raypipe.cluster import connect as module
from raypipe.cluster.connect import NoRay, cluster_address, connect, short_folder
from raypipe.config import Cluster
from raypipe.messages import message_of

SHORT = "/tmp/ray"  # noqa: S108 - Ray's own
NUMBERS = """
import raypipe.cli
from raypipe.cluster import connect

def show(_):
    from ray._raylet import Config
    print(Config.grpc_client_keepalive_time_ms(), Config.grpc_client_keepalive_timeout_ms())
    raise SystemExit

connect.cluster_address = show  # instead of a Ray that takes seconds to start
connect.connect(None)
"""


def listening_addresses(port: int) -> set[str]:
    """Local addresses, in the kernel's hexadecimal, at which something listens on the port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}


def test_a_local_rays_dashboard_is_on_loopback_and_asks_for_the_token(local_ray: None) -> None:
    """Whoever may use it, or the ports of Ray itself, can run code."""
    url = os.environ["RAY_API_SERVER_ADDRESS"]
    assert list_nodes(timeout=120)  # asks with the token, and waits for a dashboard that is still starting
    assert listening_addresses(int(url.rsplit(":", 1)[1])) == {"0100007F"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/api/jobs/", timeout=20)  # noqa: S310 - http, as above
    assert refused.value.code == 401


def test_a_local_ray_is_asked_about_itself_beside_another_one(local_ray: None) -> None:
    """Ray Train ends a training whose controller the state API doesn't know."""
    other = "import ray, sys; ray.init(address='local', num_cpus=1, object_store_memory=100 * 2**20); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", other], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"Started a local Ray instance" in line:
                    break
            nodes = list_nodes()
        finally:
            process.communicate()
    assert [node.node_id for node in nodes] == [ray.get_runtime_context().get_node_id()]


def test_a_host_that_is_cut_off_is_missed_soon() -> None:
    """The driver waits for its tasks; Ray takes these numbers as it is imported, so nothing may import it before."""
    done = subprocess.run([sys.executable, "-c", NUMBERS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "60000 20000\n"


def test_an_address_comes_from_the_config_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    assert cluster_address(Cluster()) == "there:1"
    assert cluster_address(Cluster(address="here:1")) == "here:1"
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_address(Cluster()) is None


@pytest.mark.parametrize("length", [1, 20, 38, 39, 40, 41, 42, 43, 44, 60, 107, 300])
def test_sockets_paths_are_never_too_long(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/" + "x" * length)
    session = f"session_2026-12-31_23-59-59_123456_{2**22}/sockets/plasma_store"
    folder = short_folder()
    assert len(f"{folder}/{session}") <= 107
    assert folder == (SHORT if length > 38 else f"/{'x' * length}/ray")


def test_a_folder_that_ray_was_told_to_take_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "ü" * 40)
    with pytest.raises(
        NoRay, match=r"RAY_TMPDIR is \d+ bytes too long for Ray.*107 at most.*Set RAY_TMPDIR to a shorter"
    ):
        short_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/short")
    monkeypatch.setenv("TMPDIR", "/" + "x" * 80)
    assert short_folder() == "/short/ray"
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NoRay, match=r"TMPDIR is .* too long for Ray.*Set RAY_TMPDIR"):
        short_folder()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has no Ray yet."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(module, "watch_head", lambda: None)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "OMP_WAIT_POLICY", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"):
        monkeypatch.setenv(name, "")  # what `connect` sets goes again
    monkeypatch.delenv("RAY_ADDRESS")


@pytest.mark.parametrize(
    ("address", "line"), [(None, "starting Ray on this machine"), ("auto", "connecting to Ray at auto")]
)
def test_what_may_take_long_is_said_before_it_begins_and_once(
    no_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str | None,
    line: str,
) -> None:
    caplog.set_level("INFO", logger="raypipe")
    said: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **_: said.extend(caplog.messages))
    connect(Cluster(address=address))
    assert said == [line]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    connect(Cluster(address=address))
    assert caplog.messages == [line], "a Ray that is there isn't started"


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nosuchhost.invalid:6379", "[::1]:9"])
def test_a_cluster_that_does_not_answer_is_missed_soon(no_ray: None, address: str) -> None:
    started = time.monotonic()
    with pytest.raises(NoRay, match=r"no Ray cluster answers at .*mend cluster\.address or RAY_ADDRESS") as missed:
        connect(Cluster(address=address))
    assert time.monotonic() - started < 10
    message = message_of(missed.value)
    assert (message.exit_code, message.text) == (3, str(missed.value))
    assert address in message.text


@pytest.mark.parametrize(
    "error",
    [
        OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /tmp/…/plasma_store"),
        ConnectionError("Could not find any running Ray instance."),
        RuntimeError("Version mismatch: The cluster was started with: Ray: 2.1\nThis process: Ray: 2.60"),
        ValueError(
            "After taking into account object store memory usage, the amount of memory is less than 0% of total"
        ),
        Exception(
            "The current node timed out during startup. This could happen because some of the Ray processes failed"
        ),
        OSError(errno.ENOSPC, "No space left on device", f"{SHORT}/session/logs"),
        OSError(errno.EADDRINUSE, "Address already in use"),
        ray.exceptions.RaySystemError("System error: Failed to connect to GCS"),
        ray.exceptions.AuthenticationError("the token is missing"),
        TimeoutError(),
        AssertionError(),
    ],
)
@pytest.mark.parametrize("address", [None, "auto"])
def test_whatever_ray_raises_as_it_starts_is_one_message(
    no_ray: None, monkeypatch: pytest.MonkeyPatch, error: Exception, address: str | None
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(NoRay) as refused:
        connect(Cluster(address=address))
    message = message_of(refused.value)
    assert len(message.text) < 1000
    assert "\n" not in message.text
    assert message.exit_code == 3
    assert re.search("Look for free memory|Start it, mend cluster.address", message.text)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Exception("The current node timed out during startup"), 2),
        (ConnectionError("GCS"), 2),
        (ValueError("the amount of memory is less than 0%"), 1),
        (OSError(errno.ENOSPC, "No space left on device", SHORT), 1),
    ],
)
def test_a_ray_that_starts_too_slowly_is_tried_once_more(
    no_ray: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, tries: int
) -> None:
    ports: list[int] = []

    def fail(*, dashboard_port: int, **_: object) -> None:
        ports.append(dashboard_port)
        if len(ports) == 1:
            raise error

    monkeypatch.setattr(ray, "init", fail)
    if tries == 1:
        with pytest.raises(NoRay):
            connect(Cluster())
    else:
        connect(Cluster())
    assert len(ports) == tries
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == tries - 1
    assert os.environ["RAY_API_SERVER_ADDRESS"].endswith(f":{ports[-1]}")


LONG = """
import signal, subprocess, sys
from raypipe.cluster.connect import connect
from raypipe.config import Cluster

def ended(*_):
    print("ended")
    raise KeyboardInterrupt

class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        if subprocess.Popen is Popen:  # Ray has kept this class, where it was imported after it was put here
            subprocess.Popen = before
            signal.raise_signal(signal.SIGTERM)
        super().__init__(*arguments, **options)

signal.signal(signal.SIGTERM, ended)
before, subprocess.Popen = subprocess.Popen, Popen
try:
    connect(Cluster(num_cpus=1, object_store_memory=80 * 2**20))
except KeyboardInterrupt:
    assert subprocess.Popen is before
    assert signal.getsignal(signal.SIGTERM) is ended
import ray
print(ray._private.worker._global_node.get_session_dir_path())
"""


def test_a_ray_starts_below_a_long_folder_and_whole_in_spite_of_sigterm(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_TMPDIR", None)
    command = [sys.executable, "-c", LONG]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert re.fullmatch(rf"ended\n{SHORT}/session_\S+\n", done.stdout)
    assert "RAY_TMPDIR names another short folder" in done.stderr
