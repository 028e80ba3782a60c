import re

import pytest

from raypipe.data.names import file_stem


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a/b", "ü ñ", "x" * 300, ".", "..", "a\\b", "\ud800", ""])
def test_a_name_never_leaves_its_folder(image_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_~-]+", file_stem(image_id))


def test_plain_ids_are_kept_and_odd_ones_stay_different() -> None:
    assert file_stem("2007_000032") == "2007_000032"
    assert len({file_stem(image_id) for image_id in ("a/b", "a-b", "a b", "a.b")}) == 4
