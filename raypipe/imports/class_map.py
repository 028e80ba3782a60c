"""A table that renames, merges and drops class names, as given by `--map`."""

import csv
import io
from collections.abc import Mapping

from raypipe import storage
from raypipe.formats.quote import quote
from raypipe.formats.table.dialect import full_width_hint
from raypipe.messages.nearest import nearest_name

HEADERS = (
    *(("name", "new"), ("from", "to"), ("old", "new"), ("label", "new"), ("class", "new"), ("label", "class")),
    *(("name", "new name"), ("old name", "new name"), ("original", "new"), ("source", "target")),
)
"""First lines that are headers."""


def read_class_map(uri: str) -> dict[str, str | None]:
    """Reads a CSV of two columns: a name, and the name that takes its place; an empty one drops the label.

    A further column, as `raypipe labels` writes it, is passed over. So are empty lines, and a header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't such a table, or says two things of one name.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {uri} (--map){nearest_name(uri)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri} (--map) isn't UTF-8: save it as UTF-8 ({error})") from error
    found: dict[str, str | None] = {}
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((one for one in ",;\t" if one in first), ",")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    for number, cells in enumerate(rows, start=1):
        cells = [cell.strip() for cell in cells]
        if not any(cells) or (not found and tuple(cell.lower() for cell in cells[:2]) in HEADERS):
            continue
        if len(cells) < 2 or not cells[0]:
            raise ValueError(
                f"{uri}, line {number}: expected a name and the name that takes its place (empty drops it), got "
                f"{quote(cells)}{full_width_hint(''.join(cells))}"
            )
        old, new = cells[0], cells[1] or None
        if found.setdefault(old, new) != new:
            raise ValueError(f"{uri}, line {number}: {old!r} becomes {new!r}, but {found[old]!r} in a line before")
    if not found:
        raise ValueError(f"{uri} names no class: each line has a name and the name that takes its place")
    return found


def final_names(found: Mapping[str, str | None]) -> dict[str, str | None]:
    """The map with chains followed to their end: a to b and b to c are a to c and b to c.

    Raises:
        ValueError: names go round in a circle.
    """
    final: dict[str, str | None] = {}
    for old in found:
        seen, name = [old], found[old]
        while name is not None and name in found and found[name] != name:
            if name in seen:
                raise ValueError(f"the map goes round in a circle: {' to '.join([*seen, name])}")
            seen.append(name)
            name = found[name]
        final[old] = name
    return final
