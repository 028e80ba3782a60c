import json
from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.streams.records import MixedOutputs, Record, open_folder, read_summary, table_digest, write_summary

RECORD = Record(stage="masks", config={"walk": {"beta": 8.0}}, inputs={"classifier": "abc"})


def test_folder_changes_with_config_and_inputs_alone() -> None:
    same = Record(stage="masks", config={"walk": {"beta": 8.0}}, inputs={"classifier": "abc"})
    other = Record(stage="masks", config={"walk": {"beta": 4.0}}, inputs={"classifier": "abc"})
    assert RECORD.folder("out") == same.folder("out")
    assert RECORD.folder("out") != other.folder("out")
    assert RECORD.folder("out").startswith("out/masks/")


def test_record_is_kept_beside_the_outputs(tmp_path: Path) -> None:
    folder = open_folder(RECORD, str(tmp_path))
    assert json.loads((Path(folder) / "record.json").read_bytes())["config"] == {"walk": {"beta": 8.0}}
    assert open_folder(RECORD, str(tmp_path)) == folder


def test_refuses_to_mix_and_says_what_differs(tmp_path: Path) -> None:
    folder = Path(open_folder(RECORD, str(tmp_path)))
    record = json.loads((folder / "record.json").read_bytes())
    record["config"]["walk"]["beta"] = 4.0
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(MixedOutputs, match=r"config\.walk\.beta was 4\.0, is 8\.0.*Give another `out`"):
        open_folder(RECORD, str(tmp_path))


def test_summary_marks_a_folder_finished(tmp_path: Path) -> None:
    assert read_summary(str(tmp_path)) is None
    write_summary(str(tmp_path), {"num_rows": 3})
    assert read_summary(str(tmp_path)) == {"num_rows": 3}


def test_table_digest_ignores_chunks_and_metadata() -> None:
    table = pa.table({"a": [1, 2, 3]})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)]).replace_schema_metadata({"x": "y"})
    assert table_digest(chunked) == table_digest(table)
    assert table_digest(table.slice(1)) != table_digest(table)
