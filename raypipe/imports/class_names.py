"""Class names as `--classes` gives them: a list, or a file that another program wrote."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from raypipe import storage, uri
from raypipe.formats.labelmap import read_labelmap
from raypipe.formats.quote import quote
from raypipe.messages.nearest import nearest_name

_TEXTS = (".txt", ".names", ".labels")
_OBJECTS = (".json", ".yaml", ".yml")
_OTHERS = (".csv", ".pbtxt")
_PARTS = ("names", "id2label", "classes", "CLASSES", "label2id", "class_to_idx", "metainfo")
"""Where data.yaml (YOLO), config.json (Hugging Face), metainfo.json (OpenMMLab) and the like keep names."""

_NUMBERED = re.compile(r"(\d+)(?:\s*[:;,=\t]\s*|\s+)(\S.*)")
"""A line such as `0 cat`, `1: dog`."""
_ITEM = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
"""Of TensorFlow's label maps."""


def parse_classes(text: str) -> tuple[str, ...]:
    """Returns class names in the order of their ids.

    Args:
        text: names with commas between them, or the URI of a file: a name a line, perhaps numbered, `labelmap.txt`, a
            CSV of ids and names, TensorFlow's `.pbtxt`, or JSON or YAML with a list of names, or an object from
            numbers to names or from names to numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no such list, or numbers with gaps.
    """
    content = _content(text)
    if content is None:
        cells = [cell for row in csv.reader(text.splitlines(), skipinitialspace=True) for cell in row]
        names = tuple(name for cell in cells if (name := cell.strip()))
        if not names:
            raise ValueError(f"--classes: expected a,b,c or a file with a class name a line, got {text!r}")
        return names
    kind = uri.suffix_of(text)
    if kind in _OBJECTS:
        return _of_object(_parsed(content, kind, text), text)
    if _is_labelmap(text, content):
        return read_labelmap(text).classes
    if kind == ".pbtxt" or _ITEM.match(content.strip()):
        return _of_items(content, text)
    if kind == ".csv":
        return _of_rows([row for row in csv.reader(content.splitlines(), skipinitialspace=True) if row], text)
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{text} is empty: a class name a line is needed")
    numbered = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    if len(numbered) == len(lines) and _are_ids([int(match[1]) for match in numbered]):
        return tuple(match[2] for match in sorted(numbered, key=lambda match: int(match[1])))
    return tuple(lines)


def class_colors(text: str) -> dict[tuple[int, int, int], int] | None:
    """Returns the class ids of colours, if `text` is the URI of a `labelmap.txt` that names them."""
    content = _content(text)
    return read_labelmap(text).colors or None if content is not None and _is_labelmap(text, content) else None


def _content(text: str) -> str | None:
    """The content of the file that is named; None where the names themselves are."""
    is_file = uri.suffix_of(text) in (*_TEXTS, *_OBJECTS, *_OTHERS) or (
        "," not in text and bool(text.strip()) and storage.exists(text)
    )
    if not is_file and "/" in text and "," not in text:
        raise FileNotFoundError(
            f"there is no file {text} (--classes){nearest_name(text)}; a single class whose name has a slash is "
            f"written with a comma after it: '{text},'"
        )
    if not is_file:
        return None
    try:
        return storage.read_bytes(text).decode("utf-8-sig")
    except IsADirectoryError:
        return None  # a class whose folder is here
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {text} (--classes){nearest_name(text)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{text} isn't UTF-8: {error}") from error


def _is_labelmap(text: str, content: str) -> bool:
    return uri.name_of(text).lower() == "labelmap.txt" or bool(re.match(r"#\s*label\s*:\s*color", content))


def _parsed(content: str, kind: str, text: str) -> Any:
    import yaml

    try:
        # To other loaders, a class named `no` is false, and `1e3` a number.
        return json.loads(content) if kind == ".json" else yaml.BaseLoader(content).get_single_data()
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{text} can't be read as {kind[1:].upper()}: {str(error)[:200]}") from error


def _of_object(found: Any, text: str) -> tuple[str, ...]:
    for _ in range(2):  # OpenMMLab's names lie one level deeper
        if isinstance(found, dict):
            found = next((found[name] for name in _PARTS if isinstance(found.get(name), list | dict)), found)
    if isinstance(found, dict) and found:
        if all(_is_id(key) for key in found):
            found = _in_order({int(key): name for key, name in found.items()}, text)
        elif all(_is_id(value) for value in found.values()):
            found = _in_order({int(value): name for name, value in found.items()}, text)
    if isinstance(found, list) and found and all(_is_name(name) for name in found):
        return tuple(str(name) for name in found)
    raise ValueError(f"{text}: expected a list of class names, or an object from numbers to names, got {quote(found)}")


def _of_items(content: str, text: str) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for item in _ITEM.findall(content):
        number = re.search(r"\bid\s*:\s*(\d+)", item)
        shown = re.search(r"\bdisplay_name\s*:\s*[\"'](.+?)[\"']\s*(?:\n|$)", item)
        name = shown or re.search(r"\bname\s*:\s*[\"'](.+?)[\"']\s*(?:\n|$)", item)
        if number is None or name is None:
            raise ValueError(f"{text}: expected an id and a name in each item, got {quote(item.strip())}")
        names[int(number[1])] = name[1]
    if not names:
        raise ValueError(f"{text} has no items: item {{ id: 1 name: 'cat' }} is needed for each class")
    return tuple(_in_order(names, text))


def _of_rows(rows: Sequence[Sequence[str]], text: str) -> tuple[str, ...]:
    rows = [[cell.strip() for cell in row] for row in rows]
    if rows and {cell.lower() for cell in rows[0]} & {"id", "idx", "index", "name", "class", "label"}:
        rows = rows[1:]
    width = {len(row) for row in rows}
    if width == {1}:
        return tuple(row[0] for row in rows)
    if width == {2}:
        for number, name in ((0, 1), (1, 0)):
            if all(_is_id(row[number]) for row in rows):
                return tuple(_in_order({int(row[number]): row[name] for row in rows}, text))
    raise ValueError(f"{text}: expected a class name a line, or an id and a name, got {quote(rows[:2])}")


def _in_order(names: dict[int, Any], text: str) -> list[Any]:
    if not _are_ids(names):
        raise ValueError(
            f"{text}: the numbers of the classes have gaps ({', '.join(map(str, sorted(names)[:6]))}, …): number them "
            "from 0 or 1 without gaps, or say what masks' values mean by --mask-values"
        )
    return [names[number] for number in sorted(names)]


def _are_ids(numbers: Iterable[int]) -> bool:
    ordered = sorted(numbers)
    return ordered[0] in (0, 1) and ordered == list(range(ordered[0], ordered[0] + len(ordered)))


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and bool(re.fullmatch(r"\d{1,9}", str(value)))


def _is_name(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and bool(str(value).strip())
