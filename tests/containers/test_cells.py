import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from container_files import CountingServer, counting, write_images

from raypipe import storage
from raypipe.containers import cells
from raypipe.containers.place import cell_uri
from raypipe.faults import ROW_ERRORS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CountingServer]:
    with counting(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    cells._kept.clear()
    yield
    cells._kept.clear()


def images(number: int, size: int = 3_000) -> list[bytes]:
    return [os.urandom(size) for _ in range(number)]


def uris(file: str, rows: list[int], column: str = "image.bytes") -> list[str]:
    return [cell_uri(file, column, row, group=0) for row in rows]


def read(wanted: list[str]) -> list[bytes | Exception]:
    found = storage.read_many(wanted)
    return [found[uri] for uri in wanted]


def test_a_footer_and_each_row_group_come_once(server: CountingServer, tmp_path: Path) -> None:
    data = images(300)
    write_images(tmp_path / "p.parquet", data, rows_per_group=100)
    for start in range(0, 300, 20):
        rows = list(range(start, start + 20))
        assert read(uris(f"{server.url}/p.parquet", rows)) == data[start : start + 20]
    assert len(server.asked) == 4
    assert server.num_bytes <= 1.05 * 300 * 3_000 + 64 * 2**10


def test_only_the_column_is_read(server: CountingServer, tmp_path: Path) -> None:
    data = images(50)
    write_images(tmp_path / "p.parquet", data, other=pa.array([os.urandom(100_000) for _ in data]))
    assert read(uris(f"{server.url}/p.parquet", [49, 0, 7])) == [data[49], data[0], data[7]]
    assert server.num_bytes <= 1.05 * 50 * 3_000 + 64 * 2**10


def test_a_large_row_group_is_read_bit_by_bit(
    server: CountingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "KEPT", 2**20)
    monkeypatch.setattr(cells, "_PIECE", 2**18)
    data = images(400, 10_000)
    pq.write_table(
        pa.table({"jpg": data}), tmp_path / "p.parquet", data_page_size=2**16, write_batch_size=4, use_dictionary=False
    )
    assert read(uris(f"{server.url}/p.parquet", [3, 150, 90], "jpg")) == [data[3], data[150], data[90]]
    assert not cells._kept
    assert server.num_bytes <= 2.5e6, "what comes after row 150 is hardly read"
    assert max(number for _, number in server.asked) <= 2**18 + 64 * 2**10


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "KEPT", 2**19)
    data = images(300)
    write_images(tmp_path / "p.parquet", data, rows_per_group=30)
    rows = list(range(0, 300, 7))
    assert read(uris(f"{tmp_path}/p.parquet", rows)) == [data[row] for row in rows]
    assert 0 < sum(array.nbytes for array in cells._kept.values()) <= 2**19


def test_on_s3(bucket: str, tmp_path: Path) -> None:
    """A file that is shorter than the piece of it in which the footer is looked for, and one whose footer is longer."""
    data = images(20)
    write_images(tmp_path / "small.parquet", data[:2])
    write_images(tmp_path / "large.parquet", data, **{f"column {index}": pa.nulls(20) for index in range(2_000)})
    for name, number in (("small", 2), ("large", 20)):
        uri = f"{bucket}/{name}.parquet"
        storage.write_bytes_atomic(uri, (tmp_path / f"{name}.parquet").read_bytes())
        assert read(uris(uri, list(range(number)))) == data[:number]


def test_plain_and_nested_columns(tmp_path: Path) -> None:
    data = images(3)
    table = pa.table(
        {"jpg": pa.array(data), "a.b": pa.array(data), "s": pa.array([{"t": {"u": each}} for each in data])}
    )
    pq.write_table(table.append_column("large", pa.array(data, pa.large_binary())), tmp_path / "p.parquet")
    for column in ("jpg", "a.b", "s.t.u", "large"):
        assert read(uris(f"{tmp_path}/p.parquet", [2, 0], column)) == [data[2], data[0]]


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    for number in (3, 5):
        data = images(number)
        write_images(tmp_path / "p.parquet", data)
        os.utime(tmp_path / "p.parquet", (number, number))
        assert read(uris(f"{tmp_path}/p.parquet", list(range(number)))) == data


@pytest.mark.parametrize(
    ("column", "row", "message"),
    [
        ("image", 0, "no column 'image'; there are image.bytes, image.path"),
        ("image.bytes", 3, r"no row 3 \(counted from 0\): there are 3"),
        ("image.path", 0, "column 'image.path' holds text; expected the bytes of an image file"),
        ("label", 0, "column 'label' holds INT64"),
        ("many.list.element", 0, "column 'many.list.element' holds lists"),
        ("image.bytes", 1, "is null here: the image isn't in the file"),
    ],
)
def test_what_isnt_there_is_told(tmp_path: Path, column: str, row: int, message: str) -> None:
    path = tmp_path / "p.parquet"
    many = pa.array([[b"a"]] * 3)
    write_images(path, [b"a", None, b"c"], label=pa.array([0, 1, 0]), many=many)
    found = read([cell_uri(str(path), column, row, group=0), cell_uri(str(path), "image.bytes", 2, group=0)])
    assert found[1] == b"c", "other rows are read"
    assert isinstance(found[0], ValueError)
    with pytest.raises(ValueError, match=message):
        raise found[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-5], "is no Parquet file, or it was cut off"),
        (lambda data: data[:0], "is no Parquet file, or it was cut off"),
        (lambda data: data[:-60] + bytes(40) + data[-20:], "footer is damaged"),
        (lambda data: data[:4] + bytes(100) + data[104:], "column 'image.bytes' is damaged in row group 0"),
    ],
)
def test_a_damaged_file(server: CountingServer, tmp_path: Path, damage: object, message: str) -> None:
    write_images(tmp_path / "p.parquet", images(3))
    (tmp_path / "p.parquet").write_bytes(damage((tmp_path / "p.parquet").read_bytes()))  # type: ignore[operator]
    for folder in (tmp_path, server.url):
        with pytest.raises(ValueError, match=message):
            storage.read_bytes(f"{folder}/p.parquet#column=image.bytes&row=0")


def test_a_missing_file(server: CountingServer, tmp_path: Path) -> None:
    for folder in (tmp_path, server.url):
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(f"{folder}/absent.parquet#column=image.bytes&row=0")


def test_a_lost_connection_isnt_the_files_fault(
    server: CountingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised as it is, so that the rows are tried again."""
    write_images(tmp_path / "p.parquet", images(400, 5_000))
    wanted = uris(f"{server.url}/p.parquet", [300])
    read(wanted)
    cells._kept.clear()
    monkeypatch.setattr(cells, "KEPT", 2**20)
    server.away = True
    for _ in range(2):
        [found] = read(wanted)
        assert isinstance(found, Exception)
        assert not isinstance(found, ROW_ERRORS)
        monkeypatch.setattr(cells, "KEPT", 2**30)
