import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from export_rows import make_rows

from raypipe.containers.place import cell_uri, member_uri
from raypipe.formats.base import image_suffix

Export = Callable[..., Path]


@pytest.mark.parametrize(
    ("uri", "suffix"),
    [
        ("s3://b/a.PNG", ".png"),
        ("https://host/a.webp?x=1", ".webp"),
        ("a", ".jpg"),
        ("/photos/shot #7.png", ".png"),
        ("/photos/what?.webp", ".webp"),
        ("/photos/50% off.BMP", ".bmp"),
        ("/photos/a::b.gif", ".gif"),
        ("s3://b/a#1.png", ".png"),
        ("s3://b/a?b.png", ".png"),
        ("s3://b/a+b c.tif", ".tif"),
        ("https://host/a%23b.png", ".png"),
        ("photo.JPEG", ".jpg"),
        ("photo.jfif", ".jpg"),
        ("photo.tiff", ".tif"),
        ("v1.2", ".jpg"),
        (member_uri("s3://b/a.tar", 1, 2, content="PNG"), ".png"),
        (member_uri("s3://b/a.tar", 1, 2), ".jpg"),
        (member_uri("s3://b/a.png", 1, 2, content="bin"), ".jpg"),
        (cell_uri("p.parquet", "image.bytes", 1, group=0, content="webp"), ".webp"),
    ],
)
def test_the_ending_of_an_image(uri: str, suffix: str) -> None:
    assert image_suffix(uri) == suffix


@pytest.mark.parametrize("name", ["coco", "fiftyone"])
def test_an_image_in_a_container_goes_by_the_name_of_a_file(export: Export, name: str) -> None:
    """No tool opens a tar's member by its URI."""
    uri = member_uri("s3://bucket/a.tar", 1536, 10, content="png")
    root = export(name, [replace(row, image_uri=uri) for row in make_rows()])
    if name == "fiftyone":
        assert json.loads((root / "val/data.json").read_text())["plain"] == "plain.png"
    else:
        image = json.loads((root / "annotations/val.json").read_text())["images"][0]
        assert (image["file_name"], image["coco_url"]) == ("plain.png", uri)
