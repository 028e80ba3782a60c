"""Class names as `--classes` gives them: a list, or a file that another program wrote."""

import csv
import json
import re
from typing import Any

from raypipe import storage, uri
from raypipe.formats.labelmap import parse_labelmap
from raypipe.formats.quote import quote

_FILES = (".txt", ".names", ".csv", ".json", ".yaml", ".yml")
_PARTS = ("names", "id2label", "classes", "CLASSES")
"""Where data.yaml (YOLO), config.json (Hugging Face), metainfo.json (OpenMMLab) and the like keep names."""


def parse_classes(text: str) -> tuple[str, ...]:
    """Returns class names in the order of their ids.

    Args:
        text: names with commas between them, or the URI of a file: a name a line, `labelmap.txt`, or JSON or YAML with
            a list of names, or an object from numbers to names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no such list.
    """
    is_file = "/" in text or uri.suffix_of(text) in _FILES
    if not is_file and not ("," not in text and storage.exists(text)):
        (cells,) = csv.reader([text], skipinitialspace=True)
        return tuple(name for cell in cells if (name := cell.strip()))
    try:
        content = storage.read_bytes(text).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{text} isn't UTF-8: {error}") from error
    kind = uri.suffix_of(text)
    if kind in (".json", ".yaml", ".yml"):
        return _names(_parsed(content, kind, text), text)
    if uri.name_of(text).lower() == "labelmap.txt" or re.match(r"#\s*label\s*:\s*color", content):
        return parse_labelmap(content).classes
    names = tuple(name for line in content.splitlines() if (name := line.strip()))
    if not names:
        raise ValueError(f"{text} is empty: a class name a line is needed")
    return names


def _parsed(content: str, kind: str, text: str) -> Any:
    import yaml

    try:
        return json.loads(content) if kind == ".json" else yaml.safe_load(content)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{text} can't be read as {kind[1:].upper()}: {error}") from error


def _names(found: Any, text: str) -> tuple[str, ...]:
    if isinstance(found, dict):
        part = next((found[name] for name in _PARTS if isinstance(found.get(name), list | dict)), found)
        found = part
    if isinstance(found, dict) and all(re.fullmatch(r"\d+", str(key)) for key in found):
        found = [found[key] for key in sorted(found, key=lambda key: int(key))]
    if isinstance(found, list) and found and all(isinstance(name, str | int) for name in found):
        return tuple(str(name) for name in found)
    raise ValueError(f"{text}: expected a list of class names, or an object from numbers to names, got {quote(found)}")
