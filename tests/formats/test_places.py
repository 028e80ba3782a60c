"""One data set with odd names, in every kind of place: what is imported can be read, and is the same everywhere."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raypipe import storage
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.formats.coco.read import read_coco
from raypipe.formats.folder.read import read_folder
from raypipe.formats.table.read import read_table
from raypipe.imports.finish import finish
from raypipe.uri import absolute

NAMES = (
    *("cat/a.jpg", "cat/shot #7.png", "cat/what?.webp", "cat/a b.jpg", "cat/100%.jpg", "cat/a+b&c.jpg"),
    *("dog ü/🐱.jpg", "dog ü/a::b.jpg", "dog ü/12:30.jpg", "dog ü/[1].jpg"),
)


@pytest.fixture(params=["local", "file", "memory", "http", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, bucket: str, jpeg: bytes) -> Iterator[str]:
    """URI of a folder that holds the images below `img/`, and the tables that name them."""
    contents = {f"img/{name}": jpeg for name in NAMES}
    contents["labels.csv"] = "\n".join(["image_uri,labels", *(f"img/{name},cat" for name in NAMES)]).encode()
    images = [{"id": number, "file_name": name, "height": 61, "width": 83} for number, name in enumerate(NAMES)]
    coco = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    contents["coco.json"] = json.dumps(coco).encode()
    written = {"memory": f"memory://{tmp_path}", "s3": bucket}
    folder = str(written.get(request.param) or tmp_path)
    for name, content in contents.items():
        storage.write_bytes_atomic(storage.join(folder, name), content)
    if request.param == "http":
        handler = partial(_Quiet, directory=str(tmp_path))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
            threading.Thread(target=http.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{http.server_port}"
            http.shutdown()
    else:
        yield tmp_path.as_uri() if request.param == "file" else folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Says nothing."""


def check(manifest: Manifest, place: str, jpeg: bytes) -> None:
    """That all images are where the manifest says, under the URIs that a listing has."""
    uris = manifest.table["image_uri"].to_pylist()
    assert sorted(uris) == storage.list_files(f"{place}/img")
    assert all(content == jpeg for content in storage.read_many(uris).values())


def test_a_folder(place: str, jpeg: bytes) -> None:
    manifest = finish(read_folder(absolute(f"{place}/img"))).manifest
    assert sorted(manifest.table["image_id"].to_pylist()) == sorted(NAMES)
    assert manifest.classes == ("cat", "dog ü")
    check(manifest, place, jpeg)


def test_a_table_whose_paths_count_from_it(place: str, jpeg: bytes) -> None:
    check(finish(read_table(absolute(f"{place}/labels.csv"))).manifest, place, jpeg)


def test_a_coco_file_and_a_folder(place: str, jpeg: bytes) -> None:
    check(finish(read_coco(absolute(f"{place}/coco.json"), absolute(f"{place}/img"))).manifest, place, jpeg)


def test_a_manifest_whose_paths_count_from_it(place: str, jpeg: bytes, tmp_path: Path) -> None:
    rows = [{"image_id": name, "image_uri": f"img/{name}", "labels": []} for name in NAMES]
    folder = str(tmp_path) if place.startswith("http") else place
    write_manifest(Manifest.from_rows(rows, ["cat"]), f"{folder}/m.parquet")
    check(read_manifest(f"{place}/m.parquet"), place, jpeg)


def test_whole_urls_stay(place: str, jpeg: bytes, tmp_path: Path) -> None:
    uris = storage.list_files(f"{place}/img")
    table = tmp_path / "whole.jsonl"
    table.write_text("\n".join(json.dumps({"image_uri": uri, "labels": ["cat"]}) for uri in uris))
    check(finish(read_table(str(table))).manifest, place, jpeg)
