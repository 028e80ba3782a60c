"""Shows a value of a file in a message: short, and never the bytes of an image."""

from typing import Any

_LONGEST = 160
"""Characters of a value at most."""


def quote(value: Any) -> str:
    """Returns the value as a message shows it."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        shown = "{" + ", ".join(f"{quote(name)}: {quote(one)}" for name, one in list(value.items())[:5]) + "}"
    elif isinstance(value, list | tuple):
        shown = "[" + ", ".join(quote(one) for one in value[:5]) + (", …" if len(value) > 5 else "") + "]"
    elif isinstance(value, str):
        shown = repr(value[: _LONGEST + 1])
    else:
        shown = repr(value)
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"
