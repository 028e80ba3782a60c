from pathlib import Path

import pytest

from raypipe import storage
from raypipe.cluster.probes import probing


def test_a_bucket_that_is_not_there_is_told() -> None:
    with probing("s3://no-such-bucket-of-ours/run") as (_, problems):
        pass
    assert len(problems) == 1
    assert problems[0].startswith("can't be written to: ")


def test_what_opens_nothing_is_told() -> None:
    with probing("nosuchscheme://run") as (_, problems):
        pass
    assert "can't be opened" in problems[0]


def test_new_folders_are_gone_and_old_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for out in ("old/new/run", "old"):
        with probing(str(tmp_path / out)) as (uri, problems):
            assert Path(uri).exists()
            with probing(str(tmp_path / out)):  # another machine's
                pass
            assert Path(uri).exists()
        assert problems == []
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_a_probe_that_cannot_be_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(storage, "delete", refuse)
    with probing(str(tmp_path)) as (uri, problems):
        pass
    assert problems == [f"{uri} can't be deleted: PermissionError: Access Denied"]
