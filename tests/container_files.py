"""Containers of images for tests, and a server that counts what is asked of it."""

import io
import json
import tarfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """Writes a tar of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def places_in(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of each member of a tar."""
    with tarfile.open(path) as tar:
        return {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}


def write_images(path: Path, images: Sequence[bytes | None], *, rows_per_group: int = 1000, **columns: object) -> None:
    """Writes a Parquet file as Hugging Face's `datasets` does, with more columns."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    table = pa.table({"image": pa.array(values, kind), **columns})
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=rows_per_group)


def picture(number: int, *, side: int = 64) -> bytes:
    """A small JPEG, another one for each number."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class CountingServer(ThreadingHTTPServer):
    """Serves a folder over HTTP, ranges included."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.prefix = f"{uuid.uuid4().hex}/"
        """Of the server's paths. What a process knows of a file goes by its URI, and ports come again."""
        self.knows_ranges = True
        self.away = False
        """Closes connections without an answer."""
        self.asked: list[tuple[str, int]] = []
        """Path and number of bytes of each answer."""

    @property
    def url(self) -> str:
        """Of the folder."""
        return f"http://127.0.0.1:{self.server_address[1]}/{self.prefix.rstrip('/')}"

    @property
    def num_bytes(self) -> int:
        """Of all answers."""
        return sum(number for _, number in self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingServer

    def do_HEAD(self) -> None:
        path = self.server.folder / self._name()
        self._answer(200 if path.is_file() else 404, b"", size=path.stat().st_size if path.is_file() else 0)

    def do_GET(self) -> None:
        if self.server.away:
            self.close_connection = True
            return
        name = self._name()
        path = self.server.folder / name
        if not path.is_file():
            self._answer(404, b"")
            return
        content = path.read_bytes()
        size, status = len(content), 200
        unit, _, limits = self.headers.get("Range", "").partition("=")
        if unit == "bytes" and self.server.knows_ranges:
            first, _, last = limits.partition("-")
            start = int(first) if first else max(0, size - int(last))
            content = content[start : int(last) + 1 if first and last else size]
            status = 206 if start < size else 416
        self.server.asked.append((name, len(content)))
        self._answer(status, content)

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").removeprefix(self.server.prefix)

    def _answer(self, status: int, content: bytes, *, size: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) if size is None else size))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def counting(folder: Path) -> Iterator[CountingServer]:
    """A server of a folder for a while."""
    with CountingServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
