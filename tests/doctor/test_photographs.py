"""Photographs are decoded before a run: all of a small set."""

from pathlib import Path

import pytest
from import_cases import make_image

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.doctor.photographs import read_photographs
from raypipe.pipelines.context import Context, open_context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Twenty photographs, of which one is cut off and one has no place."""
    rows = []
    for number in range(20):
        place = tmp_path / f"{number}.jpg"
        make_image(place, seed=number)
        if number == 7:
            place.write_bytes(place.read_bytes()[:-200])
        rows.append({"image_id": str(number), "image_uri": "" if number == 11 else str(place), "labels": ["cat"]})
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(Manifest.from_rows(rows, ("cat", "dog")), uri)
    return open_context(load_config("", [f"manifest={uri}", f"out={tmp_path}/out", "network.weights=null"]))


def test_every_damaged_photograph_of_a_small_set_is_found(context: Context) -> None:
    found = read_photographs(context)
    assert found.status == "warning"
    assert found.found.startswith("20 of 20 images were read, and 2 of these can't be used: 7: ")
    assert "Error: " not in found.found
    assert "a run puts them into quarantine" in found.way_out


def test_reading_ends_in_time_and_says_how_far_it_came(context: Context) -> None:
    found = read_photographs(context, seconds=-1)
    assert (found.status, found.found) == ("ok", "0 of 20 images were read")
