"""A format run by hand: what the pipeline does, without Ray."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from export_rows import CLASSES, exported_row, make_rows

from raypipe import storage
from raypipe.formats.base import ExportedRow, MaskRow, Options
from raypipe.formats.registry import FORMATS


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows in a format; the folder."""

    def write(
        name: str, rows: list[MaskRow] | None = None, *, classes: Sequence[str] = CLASSES, **options: Any
    ) -> Path:
        format_ = FORMATS[name](classes, Options(**options))
        exported = []
        for row in make_rows() if rows is None else rows:
            rendered = format_.render(row)
            for path, content in rendered.files.items():
                storage.write_bytes_atomic(storage.join(str(tmp_path), path), content)
            exported.append(exported_row(row, rendered.items))
            if row.image is not None and (folder := format_.image_folder(row.folder)) is not None:
                image = storage.join(str(tmp_path), folder, format_.image_name(row))
                storage.write_bytes_atomic(image, row.image)

        def again() -> Iterator[ExportedRow]:
            return iter(exported)

        format_.conclude(again, str(tmp_path))
        return tmp_path

    return write
