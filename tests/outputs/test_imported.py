from pathlib import Path

import pytest

from raypipe.outputs.imported import find_imported, load_imported, read_source, seeds_digest, write_seeds_file
from raypipe.schema import GIVEN_SEEDS


def test_a_folder_says_where_its_seeds_came_from(tmp_path: Path) -> None:
    folder = str(tmp_path / "seeds")
    assert read_source(folder) is None
    with pytest.raises(ValueError, match=rf"`raypipe import seeds SOURCE MANIFEST {folder}` writes it"):
        find_imported(folder)
    write_seeds_file(folder, source=str(tmp_path / "maps"), num_images=3)
    assert read_source(folder) == str(tmp_path / "maps")
    found = find_imported(folder)
    assert (found.uri, found.digest) == (folder, seeds_digest(str(tmp_path / "maps")))
    (tmp_path / "seeds").rename(tmp_path / "moved")
    assert find_imported(str(tmp_path / "moved")).digest == found.digest


def test_another_source_is_another_makers(tmp_path: Path) -> None:
    assert seeds_digest(str(tmp_path / "maps")) == seeds_digest(f"{tmp_path}/x/../maps/")
    assert seeds_digest(str(tmp_path / "maps")) != seeds_digest(str(tmp_path / "others"))


def test_all_columns_are_taken_and_no_row_is_left_out(tmp_path: Path) -> None:
    write_seeds_file(str(tmp_path), source="s3://bucket/maps", num_images=3)
    load = load_imported(find_imported(str(tmp_path)))
    assert load.writes == GIVEN_SEEDS.names
    assert load.imported
