"""Reads the labels of an image from what datasets keep them as: class numbers, names, lists of them, and their texts.

A text is split where that can't be misunderstood. What may be one name or several is refused.
"""

import ast
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from raypipe.formats.quote import quote

SEPARATOR = "|"
"""Between the names in a text, unless another one is named."""

_OTHER_SEPARATORS = re.compile(r"[,;\t\n]")


@dataclass(frozen=True, kw_only=True)
class LabelReader:
    """What a value of a label means."""

    names: Sequence[str] | None = None
    """Class names; a number counts in them, from 0. Without them a number is its own name."""
    separator: str | None = None
    """Between the names in a text. Without one it is `|`, and a text that another one may divide is refused."""
    empty: Literal["null", "none"] = "null"
    """What an empty text means: nobody labelled the image, or it shows none of the classes."""

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names or ())

    def read(self, value: Any, *, place: str) -> list[str] | None:
        """Returns the labels that a value stands for; None where nobody labelled the image.

        Args:
            value: a number, a text, a list of numbers or texts, or nothing (None, NaN). -1 is Hugging Face's "no
                label". A text may be a list as JSON or Python write it, or what Label Studio writes
                (`{"choices": […]}`).
            place: where the value stands, for the message.

        Raises:
            ValueError: the value is of another kind, may be one name or several, or a number is none of a class.
        """
        if is_missing(value) or (value == -1 and not isinstance(value, str)):
            return None
        if isinstance(value, str):
            value = self._split(value, place)
            if not value:
                return None if self.empty == "null" else []
        if isinstance(value, dict):
            value = _only_list(value, place)
        items = value if isinstance(value, list | tuple) else [value]
        names = (self._name(item, place) for item in items if not is_missing(item))
        return list(dict.fromkeys(filter(None, names)))

    def _split(self, text: str, place: str) -> Any:
        text = text.strip()
        if self.separator is not None:
            return [name.strip() for name in text.split(self.separator) if name.strip()]
        if text[:1] in ("[", "{", "(", '"', "'"):
            parsed = _parse(text)
            if parsed is not None:
                return parsed if not isinstance(parsed, str) else [parsed.strip()]
        if text[:1] in ("[", "{", '"') or text[-1:] in ("]", "}", '"'):
            raise ValueError(
                f"{place}: {quote(text)} begins or ends as a list or a quoted text, but isn't one: write names with "
                f"{SEPARATOR} between them, or name what stands between them by --separator"
            )
        names = [name.strip() for name in text.split(SEPARATOR) if name.strip()]
        if len(names) == 1 and (found := _OTHER_SEPARATORS.search(names[0])):
            raise ValueError(
                f"{place}: {quote(text)} may be one name or several: name what stands between them (--separator "
                f"{found[0]!r}), or say that it is one name (--separator '{SEPARATOR}')"
            )
        return names

    def _name(self, item: Any, place: str) -> str:
        if isinstance(item, float) and item.is_integer():
            item = int(item)  # whole numbers beside missing ones are such to pandas
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise ValueError(f"{place}: expected class numbers or names, got {quote(item)}")  # noqa: TRY004 - the file's mistake
        if isinstance(item, str):
            item = item.strip()
        if self.names is None or item in self._known or (isinstance(item, str) and not item.isdecimal()):
            return str(item)
        if not 0 <= int(item) < len(self.names):
            raise ValueError(f"{place}: class number {item}, but there are {len(self.names)} names, counted from 0")
        return self.names[int(item)]


def without_background(names: Sequence[str]) -> tuple[str, ...]:
    """A list of class names whose first one may be the background, as where ids are counted from 0, without it."""
    return tuple(names[1:] if names and names[0].casefold() == "background" else names)


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: None, or the NaN that pandas writes in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _parse(text: str) -> Any:
    """What a text means as JSON or as Python writes it; None where it is neither, or a number."""
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(parsed, set):
            return sorted(parsed, key=str)
        if isinstance(parsed, list | tuple | dict | str):
            return list(parsed) if isinstance(parsed, tuple) else parsed
    return None


def _only_list(value: dict[Any, Any], place: str) -> list[Any]:
    """The labels in an object that holds nothing else, as Label Studio writes them: {"choices": ["cat", "dog"]}."""
    if len(value) == 1:
        (only,) = value.values()
        if isinstance(only, list | str):
            return only if isinstance(only, list) else [only]
    raise ValueError(f"{place}: expected class numbers or names, got {quote(value)}")


PLAIN = LabelReader()
"""Numbers are their own names."""
