from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.data.manifest import Manifest
from raypipe.data.parts import StoredManifest, open_manifest, write_manifest
from raypipe.pipelines.imports.seed_accounts import Seen, account_of

CLASSES = ("cat", "dog", "cow")


@pytest.fixture
def manifest(tmp_path: Path) -> StoredManifest:
    labels = {"a": ["cat"], "b": ["cat", "dog"], "c": ["dog"], "d": [], "e": None}
    rows = [{"image_id": name, "image_uri": name, "labels": of} for name, of in labels.items()]
    write_manifest(Manifest.from_rows(rows, CLASSES), str(tmp_path / "m"), rows_per_part=2)
    return open_manifest(str(tmp_path / "m"))


def seeds(**classes: list[str]) -> pa.Table:
    return pa.table({"image_id": list(classes), "classes": list(classes.values())})


def test_what_fits_needs_no_words(manifest: StoredManifest) -> None:
    seen = Seen.of(manifest, seeds(a=["cat"], b=["dog", "cat"], c=["dog", "cow"], x=["cow"]), {})
    assert seen.num_images == 4
    counts = [names.number for names in (seen.unknown, seen.unseeded, seen.lacking, seen.surplus)]
    assert counts == [1, 0, 0, 1]
    all_fit = Seen.of(manifest, seeds(a=["cat"], b=["dog", "cat"], c=["dog"], d=[]), {})
    assert str(account_of(all_fit, source="s", manifest="m", classes=CLASSES)).splitlines() == [
        "s: maps of 4 images",
        "1 class has no map in any image: 'cow'",
    ]


def test_what_doesnt_fit_is_counted_and_some_of_it_named(manifest: StoredManifest) -> None:
    reasons = {f"bad{number}": "no floats" for number in range(5)}
    seen = Seen.of(manifest, seeds(b=["cat", "dgo"], w=["cat"], x=["cat"], y=["cat"], z=["cat"]), reasons)
    lines = str(account_of(seen, source="s", manifest="m", classes=CLASSES)).splitlines()
    assert lines[1].startswith("left out: 5 that break the contract, such as 'bad0': no floats; 'bad1'")
    assert "4 images that m lacks: they wait until it has them; such as 'w', 'x', 'y'" in lines
    assert "2 images with labels have no maps: a run puts them into quarantine; such as 'a', 'c'" in lines
    assert "1 image has no map of one of their labels: where it is, is unknown; such as 'b'" in lines
    assert "not used: 1 class that m lacks: 'dgo': did you mean 'dog'?" in lines
