"""An error with what it was raised from: what it is about, and its words."""

import os
import re
from collections.abc import Iterator, Sequence
from types import TracebackType

from raypipe.faults import answer_status, causes
from raypipe.uri import behind, protocol

NOTE = "URI: "
"""Begins the note on an error of storage that says which file it is about."""

Chain = Sequence[BaseException]
"""An error, and what it was raised from; what Ray wraps around it is taken off."""

_QUOTED = 300
"""Characters of a library's own words, or of a path."""

_TRACEBACK = "Traceback (most recent call last)"
_BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+\S*|[^\x20-\x7e\xa0-\U0010ffff]+")
"""What may be bytes of an image, and what a terminal doesn't print."""


def chain_of(error: BaseException) -> Chain:
    """The error and its causes; of a task of Ray that failed, what the task raised."""
    while _is_wrapper(error):
        inner = getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    return list(_with_groups(error))


def _with_groups(error: BaseException) -> Iterator[BaseException]:
    for each in causes(error):
        yield each
        if isinstance(each, BaseExceptionGroup):
            yield from each.exceptions


def _is_wrapper(error: BaseException) -> bool:
    kind = type(error)
    return kind.__module__.startswith("ray.") and kind.__name__.startswith(("RayTaskError", "UserCodeException"))


def note(error: BaseException, uri: str) -> None:
    """Notes on an error which file it is about, unless it has such a note."""
    if noted(error) is None:
        error.add_note(NOTE + uri[:1000])


def noted(error: BaseException) -> str | None:
    """The URI that an error has a note of."""
    notes = getattr(error, "__notes__", ())
    return next((str(each).removeprefix(NOTE) for each in notes if str(each).startswith(NOTE)), None)


def path_of(chain: Chain) -> str | None:
    """The file or URI that an error is about."""
    for error in chain:
        if (uri := noted(error)) is not None:
            return uri[:_QUOTED]
    for error in chain:
        if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
            return os.fsdecode(error.filename)[:_QUOTED]
    return None


def scheme_of(chain: Chain) -> str | None:
    """The scheme of that URI; of a chain of fsspec's the last one. None where nothing is known, or it is a path."""
    uri = path_of(chain)
    while uri and (inner := behind(uri)):
        uri = inner
    return protocol(uri) if uri and not uri.startswith("/") else None


def status_of(error: BaseException) -> int | None:
    """The HTTP status of a server's answer, also of web servers and of Hugging Face."""
    found = answer_status(error)
    if found is None and type(error).__module__.startswith("aiohttp."):
        found = getattr(error, "status", None)
    if found is None:
        found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) and found else None


def raised_by_raypipe(error: BaseException) -> bool:
    """Whether an error of a plain type was raised by raypipe's code, and not by a library's."""
    last: TracebackType | None = error.__traceback__
    if last is None:  # it comes from another process
        return isinstance(error, ValueError)
    while last.tb_next is not None:
        last = last.tb_next
    return str(last.tb_frame.f_globals.get("__name__", "")).startswith("raypipe.")


def text_of(error: BaseException) -> str:
    """All that an error says; nothing where it can't even do that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a library's error that lacks what its text is made of
        return ""


def words_of(error: BaseException) -> str:
    """The first line of what an error says, of a traceback the last, without bytes; its type where it says nothing."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else text_of(error)
    lines = [line.strip() for line in str(said).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1 if _TRACEBACK in str(said) else 0]
    line = _BYTES.sub("…", line.replace(_TRACEBACK, "…")).rstrip(". ")
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"
