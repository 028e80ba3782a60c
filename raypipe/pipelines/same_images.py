"""Whether images with the same ids are the same ones: by their URIs and, where those differ, by what the files hold.

Ids such as 000001 occur in many datasets. A dataset that was moved has other URIs and the same files; another dataset
has other files, too. Files of unchanged URIs aren't read: a run goes by names.
"""

from collections.abc import Mapping
from typing import NamedTuple

from raypipe import storage

NUM_IMAGES = 16
"""Images that are remembered: all of them are the same, or others, but where a set was changed by hand."""

_BEGINNING = 2**18
"""Bytes of a file that are compared: behind EXIF and colour profiles, which may be the same in all of a set's files."""


class KnownImage(NamedTuple):
    """What is remembered of an image."""

    uri: str | None
    content: str | None
    """Digest of the file's beginning; None where it couldn't be read."""


def know_images(uris: Mapping[str, str | None]) -> dict[str, KnownImage]:
    """What is to be remembered of images, by id."""
    contents = storage.read_many([uri for uri in uris.values() if uri], end=_BEGINNING)
    return {image_id: KnownImage(uri, _digest(contents.get(uri or ""))) for image_id, uri in uris.items()}


def other_images(known: Mapping[str, KnownImage], uris: Mapping[str, str | None]) -> dict[str, KnownImage]:
    """The images of now, by id, that aren't the known ones; of an id that isn't known, nothing is said.

    An image whose URI is another one and that couldn't be read, then or now, counts as another one.
    """
    moved = {image_id: uri for image_id, uri in uris.items() if image_id in known and uri != known[image_id].uri}
    found = know_images(moved)
    return {
        image_id: image
        for image_id, image in found.items()
        if image.content is None or image.content != known[image_id].content
    }


def _digest(content: bytes | Exception | None) -> str | None:
    return storage.bytes_digest(content) if isinstance(content, bytes) else None
