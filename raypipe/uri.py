"""Paths and URIs: the one parser of what people write, and the absolute form that means the same in every process.

A local file's absolute form is its path, which begins with `/`; anything else's is its URI, with the scheme in small
letters. Names in paths and in keys of stores are literal: `#`, `?`, `%`, `+` and spaces belong to them. Names in
http(s) URLs are written as URLs are (`%23` for `#`), those of `file://` as RFC 8089 says. A relative path is one of
literal names, so that it means the same file wherever the table lies that it stands in.
"""

import os
import posixpath
import re
from typing import Annotated, NamedTuple
from urllib.parse import quote, unquote

from pydantic import AfterValidator

from raypipe.credentials import refuse_credentials

ARCHIVES = "zip|tar"
CACHES = "simplecache|filecache|blockcache|cached"
"""Schemes that fsspec puts before other URIs: `zip://a.png::s3://bucket/b.zip`, `simplecache::s3://bucket/a.png`."""
STORES = "http|https|s3|s3a|gs|gcs|az|abfs|abfss|hf"
"""Schemes whose URIs begin with the name of a host, a bucket or the like."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CHAIN = re.compile(rf"(?:({ARCHIVES})(?:://(.*?))?|({CACHES})(?:://)?)::(.+)", re.DOTALL | re.IGNORECASE)
_NAMES_ITS_PLACE = re.compile(rf"/|[A-Za-z][A-Za-z0-9+.-]*://|(?:{ARCHIVES}|{CACHES})::", re.IGNORECASE)
_FILE_URI = re.compile(r"(?:file|local):(?://([^/]*))?(/.*)?", re.DOTALL | re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:(?:[\\/]|\Z)")
_ONE_SLASH = re.compile(rf"({STORES}):/(?!/)", re.IGNORECASE)
_URL = re.compile(r"(https?://[^/?#]*)([^?#]*).*", re.DOTALL)
_ROOT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_QUERY = re.compile(r"\?[\w.~-]+=")
_PLACE = re.compile(r"#(?:offset=\d+&length=|column=[^#&]+&row=)\d+[^#]*\Z")
"""A place in a container (`raypipe.containers.place`), which has an encoding of its own."""
_ODD_SEGMENTS = re.compile(r"//|/\.{1,2}(?:/|\Z)|./\Z", re.DOTALL)

_UNQUOTED = "/!$&'()*+,;=:@"
"""What stands for itself in the path of a URL, besides letters, digits and `-._~`."""


class _Parts(NamedTuple):
    """A URI, taken apart: `root + path + inner`, without what comes after the path of an http(s) URL."""

    root: str
    """What `..` doesn't lead out of: `s3://bucket`, `http://host`, `zip:/`, nothing for local paths."""
    path: str
    """Names after slashes, perhaps none."""
    inner: str = ""
    """`::` and the URI of the archive that the path lies in."""
    is_url: bool = False
    """Whether names are encoded."""


def absolute(uri: str, folder: str | None = None) -> str:
    r"""The absolute form of a path or URI that someone wrote; an absolute form stays as it is.

    A path that begins with `/` or `~` (the home folder of this process) is one of this machine, wherever `folder` is.
    In a relative one, `.` and `..` mean what they mean on a disk. From an http(s) folder it may have `%20` and the like
    as URLs have them, and a query where `?` is followed by `name=`.

    Args:
        uri: a path or URI. fsspec's chains are known by their scheme; elsewhere `::` belongs to a name.
        folder: absolute form of the folder that a relative path counts from; None means the working directory.

    Raises:
        ValueError: it is empty, is a path of Windows (`photos\cat\1.jpg`, `C:\photos`), is a file of another host,
            lacks a bucket or host, leads out of its bucket, or holds credentials.
    """
    refuse_credentials(uri, where="a URI")
    if not uri:
        raise ValueError("expected a path or URI, got an empty text")
    if "\0" in uri:
        raise ValueError(f"expected a path or URI, got one with a null byte: {uri[:200]!r}")
    if chain := _chain(uri):
        scheme, member, inner = chain
        outer = scheme if member is None else f"{scheme}://{member.strip('/')}"
        return f"{outer}::{absolute(inner, folder)}"
    if _DRIVE.match(uri):
        raise _of_windows(uri, uri)
    if (match := _FILE_URI.fullmatch(uri)) and (match[1] is not None or match[2]):
        return _normal(_decode_file_uri(uri, match[1] or "", match[2] or ""))
    if match := _SCHEME.match(uri):
        return _checked(match[1].lower(), uri[match.end() :])
    if match := _ONE_SLASH.match(uri):
        raise ValueError(f"{uri[:200]} has one slash after {match[1]}:, expected two: {_example(match[1].lower())}")
    if uri == "~" or uri.startswith("~/"):
        return _normal(os.path.expanduser(uri))  # noqa: PTH111 - pathlib would drop what is odd in the rest
    if uri.startswith("/"):
        return _normal(uri)
    if "\\" in uri:
        raise _of_windows(uri, uri)
    return _below(os.getcwd() if folder is None else folder, uri)  # noqa: PTH109


def join(folder: str, *names: str) -> str:
    """The URI of what lies in a folder.

    Args:
        folder: URI of any form; a relative path stays one.
        names: literal names, or paths of such as `relative` returns them; slashes at their ends don't matter.
    """
    parts = _split(folder)
    path = "/".join(each.strip("/") for each in names)
    added = quote(path, safe=_UNQUOTED, errors="surrogateescape") if parts.is_url else path
    return f"{parts.root}{parts.path.rstrip('/')}/{added}{parts.inner}"


def parent(uri: str) -> str:
    """The folder of a file or folder, as URI of absolute form like `uri`; of a bucket, a host or `/` itself."""
    parts = _split(uri)
    return _at(parts, posixpath.dirname(parts.path.rstrip("/")))


def name_of(uri: str) -> str:
    """The last literal name of a URI of absolute form; "" for a bucket, a host or `/`."""
    parts = _split(uri)
    found = posixpath.basename(parts.path.rstrip("/"))
    return unquote(found, errors="surrogateescape") if parts.is_url else found


def suffix_of(uri: str) -> str:
    """The ending of a URI's name in small letters, with its dot; "" if it has none."""
    return posixpath.splitext(name_of(uri))[1].lower()


def relative(uri: str, folder: str) -> str | None:
    """The path of literal names that leads from a folder to a file, so that `join` makes of both the file's URI.

    Args:
        uri: absolute form.
        folder: absolute form.

    Returns:
        The path, or None where the file isn't in the folder.
    """
    file, above = _split(uri), _split(folder)
    start = above.path.rstrip("/") + "/"
    if (file.root, file.inner) != (above.root, above.inner) or not file.path.startswith(start):
        return None
    path = file.path.removeprefix(start)
    return unquote(path, errors="surrogateescape") if file.is_url else path


def protocol(uri: str) -> str:
    """The scheme of a URI of any form, in small letters, of fsspec's chains the first; "file" for local paths."""
    if chain := _chain(uri):
        return chain[0]
    match = _SCHEME.match(uri)
    return match[1].lower() if match and match[1].lower() != "local" else "file"


def is_local(uri: str) -> bool:
    """Whether a URI of any form is a path of this machine."""
    return protocol(uri) == "file"


def behind(uri: str) -> str | None:
    """The URI that comes after the first `::` of a chain; None for a URI that is none."""
    chain = _chain(uri)
    return chain[2] if chain else None


def _chain(uri: str) -> tuple[str, str | None, str] | None:
    """The first scheme of a chain, the path in its archive (None for caches), and the URI that comes after it."""
    match = _CHAIN.fullmatch(uri)
    # A local file may be named `zip::a.png`.
    if match is None or not ("://" in uri[: match.start(4)] or _NAMES_ITS_PLACE.match(match[4])):
        return None
    archive, member, cache, inner = match.groups()
    return (archive.lower(), member or "", inner) if archive else (cache.lower(), None, inner)


def is_relative(uri: str) -> bool:
    """Whether what someone wrote counts from a folder, as `absolute` takes it."""
    file = _FILE_URI.fullmatch(uri)
    return not (uri == "~" or uri.startswith(("/", "~/")) or _SCHEME.match(uri) or (file and file[2]) or _chain(uri))


def _split(uri: str) -> _Parts:
    if chain := _chain(uri):
        scheme, member, inner = chain
        if member is not None:
            return _Parts(f"{scheme}:/", f"/{member}", f"::{inner}")
        parts = _split(inner)
        return parts._replace(root=f"{scheme}::{parts.root}")
    if match := _URL.fullmatch(uri):
        return _Parts(match[1], match[2], is_url=True)
    if (match := _FILE_URI.fullmatch(uri)) and match[2]:
        return _Parts("", _decode_file_uri(uri, match[1] or "", match[2]))
    root = match[0] if (match := _ROOT.match(uri)) else ""
    return _Parts(root, uri.removeprefix(root))


def _at(parts: _Parts, path: str) -> str:
    """The URI of another path in the same place, which a slash ends only where nothing else is left."""
    empty = "/" if not parts.root or parts.root.endswith((":", ":/")) else ""
    return f"{parts.root}{path.rstrip('/') or empty}{parts.inner}"


def _below(folder: str, path: str) -> str:
    """What a relative path means in a folder."""
    parts = _split(folder)
    query = ""
    if parts.is_url:
        if match := _QUERY.search(path):
            path, query = path[: match.start()], path[match.start() :]
        place = match[0] if (match := _PLACE.search(path)) else ""
        path, query = path.removesuffix(place), query + place
        path = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path)
        path = quote(path, safe=f"{_UNQUOTED}%", errors="surrogateescape")
    if not parts.root:
        return _normal(f"{folder}/{path}")
    names = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    for each in path.split("/"):
        if each == "..":
            if not names:
                raise ValueError(f"{path[:200]} leads out of {parts.root}, which it counts from: write the whole URI")
            names.pop()
        elif each not in ("", "."):
            names.append(each)
    if parts.inner and "::" in f"{'/'.join(names)}:":
        raise ValueError(f"{path[:200]} can't be named in {folder}: fsspec ends a path in an archive with ::")
    return _at(parts, "".join(f"/{each}" for each in names)) + query


def _normal(path: str) -> str:
    """An absolute local path without `.`, `..` and double slashes; links stay, but for those that `..` leads out of."""
    if not _ODD_SEGMENTS.search(path):
        return path
    found = "/"
    for each in path.split("/"):
        if each == "..":
            found = posixpath.dirname(os.path.realpath(found) if os.path.islink(found) else found)  # noqa: PTH114
        elif each not in ("", "."):
            found = f"{found.rstrip('/')}/{each}"
    return found


def _decode_file_uri(uri: str, host: str, path: str) -> str:
    if host.lower() not in ("", "localhost"):
        if _DRIVE.fullmatch(host):
            raise _of_windows(uri, host + path)
        raise ValueError(
            f"{uri[:200]} is a file of the host {host[:100]!r}: what comes after file:// is an absolute path of this "
            f"machine, as in file:///{host}{path}"[:600]
        )
    place = match[0] if (match := _PLACE.search(path)) else ""
    decoded = unquote(path.removesuffix(place), errors="surrogateescape") + place
    if not decoded.startswith("/") or "\0" in decoded:
        raise ValueError(f"{uri[:200]} names no file: expected an absolute path, as in file:///data/a.jpg")
    if _DRIVE.match(decoded[1:]):
        raise _of_windows(uri, decoded[1:])
    return decoded


def _checked(scheme: str, place: str) -> str:
    if scheme in STORES.split("|") and (not place or place[0] in "/?#"):
        what = "host" if scheme in ("http", "https") else "bucket or container"
        raise ValueError(f"{scheme}://{place[:200]} names no {what}: expected {_example(scheme)}")
    return f"{scheme}://{place}"


def _example(scheme: str) -> str:
    place = {"http": "host/path", "https": "host/path", "hf": "datasets/owner/name/path"}.get(scheme, "bucket/key")
    return f"{scheme}://{place}"


def _of_windows(uri: str, path: str) -> ValueError:
    path = path.replace("\\", "/")[:200]
    if _DRIVE.match(path):
        hint = f"/mnt/{path[0].lower()}/{path[2:].lstrip('/')}"
        return ValueError(f"{uri[:200]} names a drive of Windows: write the path that this machine has, such as {hint}")
    if path.startswith("//"):
        return ValueError(
            f"{uri[:200]} names a share of Windows: write the path at which it is mounted on this machine"
        )
    return ValueError(
        f"{uri[:200]} has backslashes, as paths of Windows have: write {path}. Where a name has a backslash in it, "
        "write the absolute path"
    )


def _of_config(uri: str) -> str:
    """Follows links, so that what is made from a link that comes to lead elsewhere isn't taken for up to date."""
    uri = absolute(uri)
    # Path.resolve() raises where links go round in a circle.
    return os.path.realpath(uri) if is_local(uri) else uri


Uri = Annotated[str, AfterValidator(_of_config)]
"""A URI in a config: it makes itself absolute."""
