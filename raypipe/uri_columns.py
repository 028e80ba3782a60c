"""Whole columns of URIs, without a look at each in Python: a manifest may have ten million rows."""

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.uri import STORES, absolute, join

_ABSOLUTE = rf"^(?:/|(?:{STORES})://[^/?#])"
"""How an absolute form begins; those of other schemes are looked at one by one."""

_RELATIVE = r"(?s)^[^/\\:~][^\\:]*[^/\\:]$"
_RELATIVE_TO_URL = r"^[A-Za-z0-9_-][A-Za-z0-9._/-]*$"
"""What needs no more than a folder and a slash before it."""

_ODD = r"(?s)(?:^|/)\.{1,2}(?:/|$)|^/(?:.*/)?/|^[^:/][^:]*//|^/.*/$|\x00|://[^/?#@]*:.*@"
"""Segments that stand for others, null bytes, credentials."""


def absolute_all(uris: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    """`raypipe.uri.absolute` of each URI; what it refuses, and null, stays as it is.

    Args:
        uris: (num_rows,) texts.
        folder: absolute form of the folder that relative paths count from.
    """
    return pa.chunked_array([_absolute_chunk(chunk, folder) for chunk in uris.chunks], uris.type)


def _absolute_chunk(uris: pa.Array, folder: str) -> pa.Array:
    odd = _match(uris, _ODD)
    known = pc.and_not(_match(uris, _ABSOLUTE), odd)
    prefix = join(folder, "")
    if prefix.endswith("/"):  # else it lies in an archive, which is named last
        simple = pc.and_not(_match(uris, _RELATIVE), odd)
        if prefix.startswith(("http://", "https://")):
            simple = pc.and_(simple, _match(uris, _RELATIVE_TO_URL))
        uris = pc.if_else(simple, pc.binary_join_element_wise(prefix, uris, ""), uris)
        known = pc.or_(known, simple)
    others = pc.and_not(uris.is_valid(), known)
    if not pc.any(others).as_py():
        return uris
    texts = uris.filter(others)
    different = texts.unique()
    found = pa.array([_absolute_or_same(text, folder) for text in different.to_pylist()], uris.type)
    return pc.replace_with_mask(uris, others, found.take(pc.index_in(texts, different)))


def _match(uris: pa.Array, pattern: str) -> pa.Array:
    return pc.fill_null(pc.match_substring_regex(uris, pattern), fill_value=False)


def _absolute_or_same(uri: str, folder: str) -> str:
    try:
        found = absolute(uri, folder)
        found.encode()
    except ValueError:  # also of names that aren't UTF-8, which a column can't hold
        return uri
    return found
