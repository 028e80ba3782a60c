"""Reads the labels of an image from what datasets keep them as: class numbers, names, or lists of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class LabelReader:
    """What a value of a label means."""

    names: Sequence[str] | None = None
    """Class names; a number counts in them, from 0. Without them a number is its own name."""
    separator: str = "|"
    """Between the names in a text."""
    empty: Literal["null", "none"] = "null"
    """What an empty text means: nobody labelled the image, or it shows none of the classes."""

    def read(self, value: Any, *, place: str) -> list[str] | None:
        """Returns the labels that a value stands for; None where nobody labelled the image.

        Args:
            value: a number, a text, a list of numbers or texts, or None. -1 is Hugging Face's "no label".
            place: where the value stands, for the message.

        Raises:
            ValueError: the value is of another kind, or a number is none of a class.
        """
        if value is None or value == -1:
            return None
        if isinstance(value, str):
            value = [name.strip() for name in value.split(self.separator) if name.strip()]
            if not value:
                return None if self.empty == "null" else []
        items = value if isinstance(value, list) else [value]
        return list(dict.fromkeys(self._name(item, place) for item in items))

    def _name(self, item: Any, place: str) -> str:
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise ValueError(f"{place}: expected class numbers or names, got {item!r}")  # noqa: TRY004 - the file's mistake
        if self.names is None or (isinstance(item, str) and not item.isdecimal()):
            return str(item)
        if not 0 <= int(item) < len(self.names):
            raise ValueError(f"{place}: class number {item}, but there are {len(self.names)} names, counted from 0")
        return self.names[int(item)]


PLAIN = LabelReader()
"""Numbers are their own names."""
