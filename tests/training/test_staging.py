"""Weights from the internet: downloaded once, by one machine, into the run's folder."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from raypipe.artifacts import identity
from raypipe.networks import build_classifier
from raypipe.storage import list_files, read_bytes
from raypipe.training.staging import find_weights, stage_weights
from raypipe.training.tasks import ClassifierTask

NAME = "torchvision://resnet18/IMAGENET1K_V1"
FILE = "resnet18-f37072fd.pth"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's cache with one file of weights."""
    folder = tmp_path / "hub"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "checkpoints" / FILE)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(folder))
    return folder


class Counting(SimpleHTTPRequestHandler):
    """Serves files and counts the GETs."""

    gets: list[str]

    def do_GET(self) -> None:
        type(self).gets.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base class's name
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """URL of a web server with `tiny.pth`, and the paths that it is asked for."""
    folder = tmp_path / "web"
    folder.mkdir()
    torch.save(build_classifier("tiny", num_classes=2).state_dict(), folder / "tiny.pth")
    Counting.gets = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}", Counting.gets
        http.shutdown()


def test_torchvisions_weights_are_copied_once_and_to_a_bucket(hub: Path, bucket: str) -> None:
    out = f"{bucket}/run"
    assert find_weights(NAME, out=out) is None
    uri = stage_weights(NAME, out=out)
    assert uri == f"{out}/weights/{FILE}" == find_weights(NAME, out=out)
    assert read_bytes(uri) == (hub / "checkpoints" / FILE).read_bytes()
    (hub / "checkpoints" / FILE).unlink()  # what comes now doesn't need it
    assert stage_weights(NAME, out=out) == uri
    task = ClassifierTask(
        backbone="resnet18", weights=NAME, preprocessing=None, staged_weights=uri, num_classes=2, output_stride=8
    )
    assert task.build_pretrained().backbone.name == "resnet18"


def test_a_file_of_a_web_server_is_fetched_once(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, gets = server
    uri = stage_weights(f"{url}/tiny.pth", out=str(tmp_path / "out"))
    assert stage_weights(f"{url}/tiny.pth", out=str(tmp_path / "out")) == uri
    assert gets.count("/tiny.pth") == 1
    assert uri.endswith("-tiny.pth")
    assert list_files(str(tmp_path / "out")) == [f"{uri}"]
    with pytest.raises(FileNotFoundError):
        stage_weights(f"{url}/other.pth", out=str(tmp_path / "out"))


def test_equal_names_at_two_addresses_are_two_files(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, _ = server
    (tmp_path / "web/more").mkdir()
    (tmp_path / "web/more/tiny.pth").write_bytes(b"other")
    uris = [stage_weights(f"{url}/{path}", out=str(tmp_path / "out")) for path in ("tiny.pth", "more/tiny.pth")]
    assert uris[0] != uris[1]
    assert read_bytes(uris[1]) == b"other"


def test_weights_that_every_node_reaches_stay_where_they_are(tmp_path: Path) -> None:
    for uri in ("s3://networks/resnet.pth", "/networks/resnet.pth"):
        assert stage_weights(uri, out=str(tmp_path)) == find_weights(uri, out=str(tmp_path)) == uri
    assert list_files(str(tmp_path)) == []


def test_where_weights_lie_is_no_part_of_the_digest() -> None:
    options: dict[str, Any] = {"backbone": "resnet18", "preprocessing": None, "num_classes": 2, "output_stride": 8}
    plain = ClassifierTask(weights=NAME, **options)
    assert identity(plain) == identity(ClassifierTask(weights=NAME, staged_weights="s3://a/weights/x.pth", **options))
    assert identity(plain)["weights"] == NAME
