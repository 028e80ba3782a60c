"""Fixtures for the whole suite: data that lives outside the repository, and small synthetic inputs."""

import io
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pytest
import ray
import s3fs
from PIL import Image
from tiny_networks import write_tiny

from raypipe.cluster.connect import connect
from raypipe.config import Cluster
from raypipe.data.checkpoints import Task
from raypipe.data.manifest import Manifest
from raypipe.synthetic.generate import generate

REPOSITORY = Path(__file__).resolve().parent.parent

LONGEST = (
    *("test_run.py", "streams/test_s3.py", "pipelines/test_segmenter.py", "training/test_trainer.py"),
    *("streams/test_execute.py", "streams/test_run.py", "streams/test_connect.py", "training/test_loop.py"),
    *("benchmarks/test_gpu.py", "formats/exported_model/test_write.py"),
)
"""Files of tests that take the longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first: workers get whole files, and one would wait for another's long file at the end."""
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def _shared_folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: set {variable} to run this test")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of numbers computed by the public reference implementations."""
    return _shared_folder("RAYPIPE_GOLDEN", "golden")


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """Folder of a PASCAL VOC 2012 layout."""
    return _shared_folder("RAYPIPE_VOC", "voc")


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Folder of pretrained weights."""
    return _shared_folder("RAYPIPE_WEIGHTS", "weights")


@pytest.fixture(scope="session")
def kuberay_crds() -> Path:
    """Folder of KubeRay's custom resource definitions."""
    return _shared_folder("RAYPIPE_KUBERAY", "kuberay")


@contextmanager
def serving(command: Sequence[str], port: int, *, host: str = "127.0.0.1") -> Iterator[str]:
    """A server process; its URL."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with suppress(OSError), socket.create_connection((host, port), timeout=1):
                break
            assert process.poll() is None, f"{command[0]} ended"
            time.sleep(0.1)
        yield f"http://{host}:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run on moto; those that want a bucket are there once more for another server, marked `ceph`."""
    if "s3_url" in metafunc.fixturenames:
        servers = [pytest.param("moto", id=pytest.HIDDEN_PARAM)]
        if "bucket" in metafunc.fixturenames:
            servers.append(pytest.param("ceph", marks=pytest.mark.ceph))
        metafunc.parametrize("s3_url", servers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def s3_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a real S3 server over the network; the environment names it, with credentials."""
    with ExitStack() as stack:
        if request.param == "ceph":
            url = _external_server()
        else:
            port = free_port()
            url = stack.enter_context(
                serving([str(Path(sys.executable).parent / "moto_server"), "-p", str(port)], port)
            )
            environment = stack.enter_context(pytest.MonkeyPatch.context())  # what names the other server comes back
            environment.setenv("AWS_ENDPOINT_URL", url)
            environment.setenv("AWS_ACCESS_KEY_ID", "test")
            environment.setenv("AWS_SECRET_ACCESS_KEY", "testtest")
            environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()  # those made before don't know the server
        yield url


def _external_server() -> str:
    url = os.environ.get("AWS_ENDPOINT_URL")
    if url is None:
        pytest.skip("AWS_ENDPOINT_URL names no S3 server: see CONTRIBUTING.md")
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or parts.scheme), timeout=5).close()
    except OSError as error:
        pytest.skip(f"{url}, the server of AWS_ENDPOINT_URL, doesn't answer: {error}")
    return url


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts servers (command; `--port` is added) that end with the test; their URLs."""
    with ExitStack() as stack:

        def start(*command: str) -> str:
            port = free_port()
            return stack.enter_context(serving([*command, "--port", str(port)], port))

        yield start


@pytest.fixture
def bucket(s3_url: str) -> Iterator[str]:
    """URI of an empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    fs.mkdir(name)
    yield f"s3://{name}"
    fs.rm(name, recursive=True)


@pytest.fixture(scope="session")
def local_ray(s3_url: str) -> Iterator[None]:
    """One local Ray for the whole suite: starting one costs seconds. Its workers inherit where the S3 server is."""
    connect(Cluster(num_cpus=4, object_store_memory=300 * 2**20))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    """URI and content of a manifest of 24 small synthetic images."""
    folder = tmp_path_factory.mktemp("synthetic")
    manifest = generate(str(folder), num_images=24, sizes=(96, 128))
    return str(folder / "manifest.parquet"), manifest


@pytest.fixture(scope="session")
def classifier_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a tiny classifier of two classes with random weights."""
    return _write_network(tmp_path_factory, "classifier")


@pytest.fixture(scope="session")
def affinity_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a tiny AffinityNet with random weights."""
    return _write_network(tmp_path_factory, "affinity")


def _write_network(tmp_path_factory: pytest.TempPathFactory, task: Task) -> str:
    return write_tiny(str(tmp_path_factory.mktemp(task)), task=task).uri


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A photograph-like image of 83 x 61 pixels (width x height)."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize(
        (83, 61), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    smooth.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
