from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from raypipe import storage
from raypipe.containers.fetch import Range
from raypipe.storage import ranges

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(CONTENT)
    return str(tmp_path / "file")


@pytest.mark.parametrize(
    "wanted",
    [
        [(0, 10)],
        [(10, 20), (20, 30), (5, 12)],
        [(299_990, 300_010), (0, 1)],
        [(100, 100), (7, 7)],
        [(200_000, 210_000), (0, 10), (200_005, 200_006), (0, 300_000)],
        [(400_000, 400_010)],
        [(5, 9)] * 3,
        [],
    ],
)
def test_each_range_holds_its_own_bytes(file: str, wanted: list[tuple[int, int]]) -> None:
    assert storage.read_ranges(file, wanted) == [CONTENT[start:end] for start, end in wanted]


def test_what_lies_close_together_comes_by_one_request(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int | None]] = []
    fetch = ranges.fetch_ranges

    def watched(fs: object, wanted: Sequence[Range]) -> list[bytes | Exception]:
        asked.extend((each.start, each.end) for each in wanted)
        return fetch(fs, wanted)

    monkeypatch.setattr(ranges, "fetch_ranges", watched)
    storage.read_ranges(file, [(0, 10), (200_000, 200_010), (60_000, 60_010), (5, 20)])
    assert asked == [(0, 60_010), (200_000, 200_010)]
    asked.clear()
    monkeypatch.setattr(ranges, "LARGEST_REQUEST", 15)
    storage.read_ranges(file, [(0, 10), (10, 20)])
    assert asked == [(0, 10), (10, 20)]


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    for read in (lambda: storage.read_ranges(absent, [(0, 1)]), lambda: storage.version(absent)):
        with pytest.raises(FileNotFoundError, match="absent"):
            read()
    with pytest.raises(FileNotFoundError, match="absent"), storage.open_blocks(absent):
        pass


def test_a_version_is_that_of_the_content(file: str) -> None:
    before = storage.version(file)
    assert storage.version(file) == before
    Path(file).write_bytes(CONTENT[1:])
    assert storage.version(file) != before


def test_blocks_hold_the_file(file: str, bucket: str) -> None:
    remote = f"{bucket}/file"
    storage.write_bytes_atomic(remote, CONTENT)
    for uri in (file, remote):
        with storage.open_blocks(uri) as opened:
            assert opened.seek(0, 2) == len(CONTENT)
            opened.seek(270_000)
            assert opened.read(50) == CONTENT[270_000:270_050]
        assert storage.read_ranges(uri, [(270_000, 270_050), (299_999, 300_005)]) == [
            CONTENT[270_000:270_050],
            CONTENT[299_999:],
        ]
        assert storage.version(uri) == storage.version(uri)
