"""Which rows fail only because a node lacks a mount: no Ray, and another node that has files of its own."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from raypipe.faults import blame
from raypipe.outputs.records import open_folder
from raypipe.outputs.sink import ShardWriter
from raypipe.streams.guard import Guard
from raypipe.streams.local_files import MOST_TRIED, check_error, check_out, check_rows


@dataclass
class Others:
    """What the driver's node and some other one can read."""

    driver: set[str] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    asked: list[tuple[int, bool]] = field(default_factory=list)

    def readable_elsewhere(self, paths: list[str], *, ask_all: bool) -> list[str]:
        self.asked.append((len(paths), ask_all))
        found = [path for path in paths if path in self.driver]
        return found if found or not ask_all else [path for path in paths if path in self.other]


def tables(uris: list[str | None], reasons: list[str | None], **more: Any) -> tuple[pa.Table, pa.Table]:
    nothing = pa.nulls(len(uris), pa.string())
    before = pa.table(
        {"image_uri": pa.array(uris, pa.string()), "error_stage": nothing, "error_reason": nothing, **more}
    )
    stages = ["FetchImages" if reason else None for reason in reasons]
    after = pa.table({"error_stage": pa.array(stages, pa.string()), "error_reason": pa.array(reasons, pa.string())})
    return before, after


def missing(path: str) -> str:
    return f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'"


GONE = [f"/mnt/gone/{index}.jpg" for index in range(20)]


def fails(others: Others, uris: list[str | None], reasons: list[str | None], **more: Any) -> bool:
    """Whether the node is blamed."""
    found: list[OSError] = []
    try:
        check_rows(cast(Guard, others), *tables(uris, reasons, **more))
    except OSError as error:
        found.append(error)
    assert all(blame(error) == "node" and "mount missing" in str(error) for error in found)
    return bool(found)


def test_rows_that_are_well_ask_nobody() -> None:
    others = Others()
    assert not fails(others, [*GONE], [None] * 20)
    assert others.asked == []


@pytest.mark.parametrize("many", [1, 5, 20])
def test_what_the_drivers_node_can_read_is_the_nodes_fault(many: int) -> None:
    others = Others(driver=set(GONE))
    assert fails(others, [*GONE], [missing(path) if number < many else None for number, path in enumerate(GONE)])
    assert others.asked == [(min(many, MOST_TRIED), many >= 10)]


@pytest.mark.parametrize("many", [1, 5, 20])
def test_what_nobody_can_read_is_the_rows_fault(many: int) -> None:
    others = Others()
    assert not fails(others, [*GONE], [missing(path) if number < many else None for number, path in enumerate(GONE)])
    assert len(others.asked) == 1, "once, however many there are"


def test_another_node_is_asked_where_many_rows_fail_alike() -> None:
    others = Others(other=set(GONE))
    assert not fails(others, [*GONE], [missing(GONE[0]), *[None] * 19]), "one missing file must stay cheap"
    assert fails(others, [*GONE], [missing(path) for path in GONE])
    assert not fails(others, GONE[:1], [missing(GONE[0])]), "one row is not many"


@pytest.mark.parametrize(
    "reason",
    [
        "PermissionError: [Errno 13] Permission denied: '/mnt/gone/0.jpg'",
        "NotADirectoryError: [Errno 20] Not a directory: '/mnt/gone/0.jpg'",
    ],
)
def test_so_is_what_may_not_be_read_here(reason: str) -> None:
    assert fails(Others(driver=set(GONE)), [GONE[0]], [reason])
    assert not fails(Others(), [GONE[0]], [reason])


@pytest.mark.parametrize(
    "reason", ["ImageError: it is damaged", "ValueError: labels are null", "IsADirectoryError: /mnt/gone/0.jpg"]
)
def test_other_errors_ask_nobody(reason: str) -> None:
    others = Others(driver=set(GONE))
    assert not fails(others, [GONE[0]], [reason])
    assert others.asked == []


@pytest.mark.parametrize("uri", ["s3://bucket/gone.jpg", "https://host/gone.jpg", "memory://gone.jpg", "", None])
def test_stores_are_the_same_everywhere(uri: str | None) -> None:
    others = Others(driver={"gone.jpg", "/gone.jpg", "bucket/gone.jpg"})
    assert not fails(others, [uri], ["FileNotFoundError: gone.jpg"])
    assert others.asked == []


@pytest.mark.parametrize(
    "uri", ["s3:/one-slash", "s3:///key", r"C:\mask.png", "file://other-host/x", "a\0b", "gopher://x"]
)
def test_what_is_no_uri_is_its_rows_fault(uri: str) -> None:
    assert not fails(Others(driver={uri}), [uri], ["FileNotFoundError: another file of the row"])


@pytest.mark.parametrize("uri", ["file:///mnt/gone/0.jpg", "/mnt/gone/0.jpg", "/mnt/gone/../gone/0.jpg"])
def test_local_files_have_several_forms(uri: str) -> None:
    assert fails(Others(driver={"/mnt/gone/0.jpg"}), [uri], [missing(uri)])


def test_a_container_is_looked_for_as_a_whole() -> None:
    uri = "/mnt/gone/a.tar#offset=512&length=9"
    assert fails(Others(driver={"/mnt/gone/a.tar"}), [uri], [missing("/mnt/gone/a.tar")])


def test_all_columns_of_uris_count_and_what_can_be_read_here_does_not(tmp_path: Path) -> None:
    here = tmp_path / "0.jpg"
    here.write_bytes(b"x")
    others = Others(driver={str(here), *GONE})
    assert not fails(others, [str(here)], [missing(GONE[0])]), "it was there again"
    assert fails(others, [str(here)], [missing(GONE[0])], mask_uri=[GONE[0]])


def test_rows_that_were_in_error_before_say_nothing() -> None:
    others = Others(driver=set(GONE))
    before, _ = tables(GONE[:1], [None])
    failed = pa.table({**before.to_pydict(), "error_stage": ["FetchImages"], "error_reason": [missing(GONE[0])]})
    check_rows(cast(Guard, others), failed, failed)
    assert others.asked == []


def test_errors_of_files_that_others_can_read_are_the_nodes() -> None:
    error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), GONE[0])
    with pytest.raises(OSError, match="mount missing") as raised:
        check_error(cast(Guard, Others(other=set(GONE))), error)
    assert blame(raised.value) == "node"
    check_error(cast(Guard, Others()), error)
    check_error(cast(Guard, Others(other=set(GONE))), FileNotFoundError("without a name"))
    check_error(cast(Guard, Others(other=set(GONE))), ValueError(GONE[0]))


def test_nothing_is_written_where_the_runs_folder_is_missing(tmp_path: Path) -> None:
    writer = ShardWriter(folder=str(tmp_path / "masks" / "0"), schema=pa.schema([]), run=1)
    with pytest.raises(OSError, match="mount missing") as raised:
        check_out(writer)
    assert blame(raised.value) == "node"
    assert not (tmp_path / "masks").exists()
    open_folder(writer.folder, {})
    check_out(writer)
    check_out(ShardWriter(folder="s3://bucket/masks/0", schema=pa.schema([]), run=1))
