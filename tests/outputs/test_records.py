import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe.outputs.records import (
    MixedOutputs,
    open_folder,
    read_stream_summary,
    read_summary,
    row_digests,
    set_digest,
    set_sum,
    sum_digest,
    write_summary,
)
from raypipe.results import StreamSummary

PROVENANCE = {"stream": "masks", "stages": [{"class": "Walk", "beta": 8.0}], "classes": ("cat",)}


def test_the_record_is_kept_beside_the_outputs(tmp_path: Path) -> None:
    open_folder(str(tmp_path), PROVENANCE)
    assert json.loads((tmp_path / "record.json").read_bytes())["stages"] == [{"class": "Walk", "beta": 8.0}]
    before = (tmp_path / "record.json").stat().st_mtime_ns
    open_folder(str(tmp_path), PROVENANCE)
    assert (tmp_path / "record.json").stat().st_mtime_ns == before


def test_refuses_to_mix_and_says_what_differs(tmp_path: Path) -> None:
    open_folder(str(tmp_path), PROVENANCE | {"walk": {"beta": 8.0, "alpha": 4.0}})
    with pytest.raises(MixedOutputs, match=r"otherwise: walk\.beta was 8\.0, is 4\.0\. Give another `out`"):
        open_folder(str(tmp_path), PROVENANCE | {"walk": {"beta": 4.0, "alpha": 4.0}})
    with pytest.raises(MixedOutputs, match=r"walk was .*, is None"):
        open_folder(str(tmp_path), PROVENANCE)


def test_summary_marks_a_folder_finished(tmp_path: Path) -> None:
    assert read_summary(str(tmp_path)) is None
    write_summary(str(tmp_path), {"num_rows": 3})
    assert read_summary(str(tmp_path)) == {"num_rows": 3}


def test_a_summary_of_another_version_ends_in_one_message(tmp_path: Path) -> None:
    assert read_stream_summary(str(tmp_path)) is None
    counts = {"num_rows": 3, "num_finished": 2, "num_quarantined": 1, "num_computed": 3}
    write_summary(str(tmp_path), counts | {"seconds": 1.5, "total_seconds": 2.5})
    assert read_stream_summary(str(tmp_path)) == StreamSummary(**counts, seconds=1.5, total_seconds=2.5)
    for other in ({"seconds": 1.5}, {"seconds": 1.5, "total_seconds": 2.5, "new": 0}):
        write_summary(str(tmp_path), counts | other)
        with pytest.raises(ValueError, match=r"summary\.json: expected .*total_seconds, found .* Delete this file"):
            read_stream_summary(str(tmp_path))


ROWS: dict[str, list[Any]] = {
    "image_id": ["a", "b", "c"],
    "image_uri": ["1.jpg", "2.jpg", None],
    "labels": [["cat"], [], None],
    "split": ["train", "val", "val"],
}
READ = ("image_uri", "labels")


def digests(*columns: str, **changes: list[Any]) -> list[str]:
    table = pa.table({**ROWS, **changes})
    found: list[str] = row_digests(table, columns or READ).to_pylist()
    return found


def test_rows_are_known_by_what_is_read_of_them() -> None:
    assert len(set(digests())) == 3
    assert all(len(digest) == 16 for digest in digests())
    assert digests(split=["x", "y", "z"]) == digests()
    assert digests("image_uri") != digests()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("image_id", ["a", "B", "c"]),
        ("image_uri", ["1.jpg", "3.jpg", None]),
        ("labels", [["cat"], ["cat"], None]),
        ("labels", [["cat"], None, None]),
    ],
)
def test_a_row_that_changes_changes_its_own_digest_alone(column: str, values: list[Any]) -> None:
    before, after = digests(), digests(**{column: values})
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_no_two_rows_are_written_alike() -> None:
    """The bytes of a row, of which the digest is made: no value may run over into the next one."""
    labels: list[list[str | None] | None] = [["a", "b"], ["ab"], ["a,b"], ["a", "1:b"], ["1:a"], [""], [None], [], None]
    rows = [("x", uri, value) for uri in ("", "1:a", "-", None) for value in labels]
    rows += [("x1", "", []), ("x", "1", []), ("x", "é", []), ("x", "e", [])]
    ids, uris, lists = (list(values) for values in zip(*rows, strict=True))
    found = digests(image_id=ids, image_uri=uris, labels=lists, split=[None] * len(rows))
    assert len(set(found)) == len(rows)
    assert found[5:9] == digests(image_id=ids[5:9], image_uri=uris[5:9], labels=lists[5:9], split=[None] * 4)
    table = pa.table({"image_id": ids, "image_uri": uris, "labels": lists})
    assert row_digests(table.slice(3, 6), READ).to_pylist() == found[3:9], "a slice's lists begin elsewhere"


def test_numbers_and_columns_without_a_value_count() -> None:
    table = pa.table({"image_id": ["a", "b"], "row": [1, None], "list": [[1.5], [2.5]], "none": pa.nulls(2)})
    assert len(set(row_digests(table, table.column_names).to_pylist())) == 2
    assert row_digests(table, ["row"]) != row_digests(table.set_column(1, "row", [[2, None]]), ["row"])


def test_a_digest_is_the_same_everywhere() -> None:
    """Another one would compute all rows again."""
    written = [b"1:a5:1.jpg1:3:cat", b"1:b5:2.jpg0:", b"1:c--"]
    assert digests() == [hashlib.blake2b(row, digest_size=8).hexdigest() for row in written]


def test_the_order_of_rows_and_columns_does_not_count() -> None:
    assert digests(*READ[::-1]) == digests("image_id", *READ) == digests()
    table = pa.table(ROWS)
    backwards = table.take([2, 1, 0])
    assert row_digests(backwards, READ).to_pylist() == digests()[::-1]
    assert set_digest(backwards, READ) == set_digest(table, READ)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)]).replace_schema_metadata({"x": "y"})
    assert set_digest(chunked, READ) == set_digest(table, READ)


def test_a_set_changes_with_its_members() -> None:
    table = pa.table(ROWS)
    assert len({set_digest(table.slice(0, number), READ) for number in range(4)}) == 4
    assert set_digest(pa.concat_tables([table, table.slice(0, 1)]), READ) != set_digest(table, READ)


def test_a_set_is_the_sum_of_its_parts() -> None:
    table = pa.table(ROWS)
    sums = [set_sum(table.slice(start, 1), READ) for start in range(3)]
    assert sum_digest(sums) == sum_digest(sums[::-1]) == set_digest(table, READ)
    assert sum_digest([]) == set_digest(table.slice(0, 0), READ)
