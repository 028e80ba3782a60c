"""What a search of the walk does without Ray; `test_sweep.py` runs one."""

import pyarrow as pa

from raypipe.data.rows import Rows
from raypipe.pipelines.walk.search import labelled_places


def test_places_are_those_of_labelled_images_in_one_order() -> None:
    rows = [
        {"image_id": name, "labels": labels, "shard_uri": "s", "shard_row": number}
        for number, (name, labels) in enumerate([("a", ["x"]), ("b", []), ("c", ["y"]), ("d", ["x", "y"])])
    ]
    tables = pa.Table.from_pylist(rows), pa.Table.from_pylist(rows[::-1])
    first, second = (labelled_places(Rows.of(table), seed=3) for table in tables)
    assert first == second
    assert {place.row for place in first} == {0, 2, 3}
