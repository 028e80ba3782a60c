from pathlib import Path

import pytest

from raypipe import storage
from raypipe.formats.table.files import ending, find_tables


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t.csv", ".csv"),
        ("T.CSV", ".csv"),
        ("t.csv.gz", ".csv"),
        ("/a.b/t.jsonl.zst", ".jsonl"),
        ("s3://b/t #1.parquet", ".parquet"),
        ("https://h/t.csv?sig=1", ".csv"),
        ("t.gz", ""),
        ("t", ""),
    ],
)
def test_ending(name: str, expected: str) -> None:
    assert ending(name) == expected


def test_tables_of_a_folder(tmp_path: Path, bucket: str) -> None:
    wanted = ["a/part-0.csv", "a/part-1.csv", "b.csv.gz"]
    others = [".hidden.csv", "_SUCCESS", "_temporary/part-0.csv", ".ipynb_checkpoints/b-checkpoint.csv", "a/x.jpg",
              "__MACOSX/._b.csv", "readme.md"]  # fmt: skip
    for name in (*wanted, *others):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / name).touch()
        storage.write_bytes_atomic(f"{bucket}/t/{name}", b"x")
    for root in (f"{tmp_path}/t", f"{bucket}/t"):
        assert find_tables(root) == [f"{root}/{name}" for name in wanted]
        assert find_tables(f"{root}/b.csv.gz") == [f"{root}/b.csv.gz"]
        with pytest.raises(FileNotFoundError, match="there is no table"):
            find_tables(f"{root}/absent.csv")
    (tmp_path / "t/c.jsonl").touch()
    with pytest.raises(ValueError, match=r"tables of several formats \(\.csv, \.jsonl\): name one"):
        find_tables(f"{tmp_path}/t")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no table"):
        find_tables(f"{tmp_path}/empty")
