"""What rows are called. An id is for ever: what is made of an image joins by it, so it never depends on other rows.

It is the data's own, else the image's path with its ending, relative to the folder that names count from, and the whole
URI for what lies outside of it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from raypipe import uri
from raypipe.formats.listing import without_suffix
from raypipe.imports.account import Account, some

Ids = Literal["path", "stem"]
"""What ids are made of where the data have none: the path, or the file's name without ending."""


def make_ids(own: Sequence[str | None], uris: Sequence[str], *, root: str, ids: Ids) -> list[str]:
    """Returns the id of each row.

    Args:
        own: ids that the data give.
        uris: absolute URIs of the images.
        root: absolute URI of the folder that names count from.
        ids: what ids are made of where there are none.

    Raises:
        ValueError: several images have the same stem.
    """
    if ids == "stem":
        stems = [without_suffix(uri.name_of(one)) for one in uris]
        images = {(stem, one) for stem, one in zip(stems, uris, strict=True)}
        if twice := sorted(stem for stem, number in Counter(stem for stem, _ in images).items() if number > 1):
            raise ValueError(f"{some(twice, 'file names are of several images')}: leave out --ids stem")
        return stems
    return [
        given if given is not None and given.strip() else uri.relative(one, root) or one
        for given, one in zip(own, uris, strict=True)
    ]


def make_unique(ids: list[str], uris: Sequence[str], account: Account) -> list[str]:
    """Returns the ids with a number after those that the data give to several images; the first one keeps its own."""
    first: dict[str, str] = {}
    others: dict[tuple[str, str], str] = {}
    numbers: Counter[str] = Counter()
    every, changed, unique = set(ids), [], []
    for own, one in zip(ids, uris, strict=True):
        if first.setdefault(own, one) == one:
            unique.append(own)
            continue
        if (own, one) not in others:
            new = own
            while new in every:
                numbers[own] += 1
                new = f"{own} ({numbers[own] + 1})"
            every.add(new)
            others[own, one] = new
            changed.append(own)
        unique.append(others[own, one])
    if changed:
        account.say(f"{some(changed, 'ids are of several images')}; those after the first got a number")
    return unique
