"""Datasets in small, as people have them, and importers called as a shell calls them."""

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from PIL import Image
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest


def mark_folder(place: str) -> None:
    """Marks a folder of a store by an empty object whose key ends with a slash, as Amazon's web page does."""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    fsspec.filesystem("s3").call_s3("put_object", Bucket=bucket, Key=key, Body=b"")


class Said(Exception):  # noqa: N818 - what was said, not what went wrong
    """What an import that was refused has said."""


def make_image(path: Path, *, kind: str | None = None, seed: int = 0, **save: Any) -> None:
    """Writes a picture of 128 x 96 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(cells).resize((128, 96), Image.Resampling.BICUBIC).save(path, format=kind, **save)


def make_mask(path: Path, value: int, *, box: tuple[int, int, int, int] = (20, 60, 30, 80)) -> None:
    """Writes a mask with one rectangle of a value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((96, 128), np.uint8)
    mask[box[0] : box[1], box[2] : box[3]] = value
    Image.fromarray(mask).save(path)


def write_coco(
    path: Path, images: list[str], categories: list[tuple[int, str]], annotations: list[dict[str, Any]]
) -> None:
    """Writes a COCO file; annotations have a box unless they say another."""
    content = {
        "images": [{"id": i, "file_name": name, "height": 96, "width": 128} for i, name in enumerate(images)],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [
            {"id": i, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0, **one} for i, one in enumerate(annotations)
        ],
    }
    path.write_text(json.dumps(content))


def run(*words: object) -> str:
    """Runs `raypipe import`; what it prints.

    Raises:
        Said: it was refused.
    """
    result = CliRunner().invoke(app, ["import", *map(str, words)])
    if isinstance(result.exception, SystemExit) or result.exception is None:
        assert result.exit_code == 0, result.output
        return result.output
    if isinstance(result.exception, ValueError | OSError):
        raise Said(str(result.exception)) from result.exception
    raise result.exception


def imported(*words: object) -> Manifest:
    """Runs `raypipe import` with a manifest as its last word, and reads that."""
    run(*words)
    return read_manifest(str(words[-1]))


def column(manifest: Manifest, name: str) -> list[Any]:
    """A column's values."""
    values: list[Any] = manifest.table[name].to_pylist()
    return values
