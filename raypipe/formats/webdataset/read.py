"""Imports WebDataset: tars in which the files of a sample share a name up to its first dot.

7.jpg  7.cls  7.seg.png  7.json
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.containers.place import member_uri
from raypipe.formats.containers import Container, Found, manifest_rows
from raypipe.formats.labels import PLAIN, LabelReader
from raypipe.formats.listing import IMAGE_SUFFIXES
from raypipe.formats.webdataset.members import TarMember, find_members

KEY = "key"
"""As `ids`: a sample's key is its id."""


@dataclass(frozen=True, kw_only=True)
class WebDatasetReader:
    """Reads the samples of one tar, without decoding an image."""

    image: str | None = None
    """Ending of the images; by default a sample has one member with the ending of an image."""
    labels: str | None = "cls"
    """Ending of the member that holds the labels; of a JSON file with a field, `json:tags` or `json:meta.tags`. None
    leaves all images unlabelled."""
    mask: str | None = None
    """Ending of the true masks."""
    ids: str | None = None
    """`key`, or a member as in `labels`; None makes ids of the container's name and the key."""
    reader: LabelReader = PLAIN

    def __call__(self, container: Container) -> Found:
        """Returns the tar's rows; a sample without the member that `labels` names is unlabelled.

        Raises:
            ValueError: the tar is damaged or compressed, a sample has several images, a member occurs twice, or labels
                can't be read.
        """
        read = {name.partition(":")[0].lower() for name in (self.labels, self.ids) if name and name != KEY}
        samples: dict[str, dict[str, TarMember]] = {}
        for member in find_members(container, contents_of=read):
            sample = samples.setdefault(member.key, {})
            if member.ending in sample:
                raise ValueError(f"{container.uri} has two members {member.key}.{member.ending}: keep one of them")
            sample[member.ending] = member
        rows = []
        for key, sample in samples.items():
            place = f"{container.uri}, sample {key!r}"
            image = self._image(sample, place)
            if image is None:
                continue
            mask = sample.get(self.mask.lower()) if self.mask else None
            rows.append(
                {
                    "image_id": self._id(container, key, sample, place),
                    "image_uri": _uri(container, image),
                    "labels": self.reader.read(_value(self.labels, sample, place), place=place),
                    "mask_uri": mask and _uri(container, mask),
                }
            )
        return Found(rows=manifest_rows(rows, container), classes=None, num_left_out=len(samples) - len(rows))

    def _image(self, sample: Mapping[str, TarMember], place: str) -> TarMember | None:
        if self.image is not None:
            return sample.get(self.image.lower())
        found = [ending for ending in sample if f".{ending}".endswith(IMAGE_SUFFIXES) and ending != self.mask]
        if len(found) > 1:
            raise ValueError(
                f"{place} has several images, {', '.join(found)}: name the one to take (--image {found[0]})"
            )
        return sample[found[0]] if found else None

    def _id(self, container: Container, key: str, sample: Mapping[str, TarMember], place: str) -> str:
        if self.ids is None:
            return f"{container.name}/{key}"
        value = key if self.ids == KEY else _value(self.ids, sample, place)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(f"{place}: expected a text or a number as id in {self.ids!r}, got {value!r}")
        return str(value)


def _uri(container: Container, member: TarMember) -> str:
    return member_uri(container.uri, member.offset, member.size, content=member.ending.rpartition(".")[2])


def _value(name: str | None, sample: Mapping[str, TarMember], place: str) -> Any:
    """What a member says, or a field of a JSON file; None where the sample has none."""
    ending, _, field = (name or "").partition(":")
    member = sample.get(ending.lower())
    if member is None or member.content is None:
        return None
    try:
        text = member.content.decode("utf-8-sig").strip()
        if not field:
            return text
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place}: {ending} can't be read as {'JSON' if field else 'text'} ({error})") from error
    for part in field.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{place}: expected a JSON object with the field {field!r}, got {str(value)[:80]!r}")  # noqa: TRY004
        value = value.get(part)
    return value
