"""A format run by hand: what the pipeline does, without Ray."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from export_rows import CLASSES, make_rows

from raypipe import storage
from raypipe.formats.base import ExportedRow, MaskRow, Options
from raypipe.formats.registry import FORMATS


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows in a format; the folder."""

    def write(name: str, rows: list[MaskRow] | None = None, **options: Any) -> Path:
        format_ = FORMATS[name](CLASSES, Options(**options))
        exported = []
        for row in make_rows() if rows is None else rows:
            rendered = format_.render(row)
            for path, content in rendered.files.items():
                storage.write_bytes_atomic(storage.join(str(tmp_path), path), content)
            exported.append(
                ExportedRow(
                    image_id=row.image_id,
                    number=row.number,
                    split=row.split,
                    image_uri=row.image_uri,
                    items=rendered.items,
                )
            )

        def again() -> Iterator[ExportedRow]:
            return iter(exported)

        format_.finish(again, str(tmp_path))
        return tmp_path

    return write
