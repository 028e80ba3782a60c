"""Reads folders of images and of masks that go by the same names, as mmsegmentation and FiftyOne have them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from raypipe import storage, uri
from raypipe.formats.draft import Draft, draft_table
from raypipe.formats.exported import labels_of_masks, read_exported
from raypipe.formats.listing import IMAGE_SUFFIXES, list_images, without_suffix


class Pair(NamedTuple):
    """Images with their folder of masks."""

    images: str | Mapping[str, str]
    """The folder; or places of images by the names of their masks, without ending."""
    masks: str
    split: str | None


def read_pairs(
    root: str,
    find: Callable[[str], Sequence[Pair]],
    *,
    classes: tuple[str, ...] | None,
    classes_from: str,
    suffixes: tuple[str, str] | None = None,
) -> Draft:
    """Returns the images of an export of raypipe by its list, or else those of pairs of folders.

    Args:
        root: absolute URI of the dataset.
        find: finds the pairs of folders of the dataset, where it has no list.
        classes: class names in the order of the masks' ids, from 1; images have the labels of their masks by it.
        classes_from: what says it, for messages.
        suffixes: endings of images and masks, which are no part of what they have in common; None takes what follows
            the last dot.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is damaged, or there are no images.
    """
    exported = read_exported(root)
    skipped: dict[str, list[str]] = {}
    if exported is None:
        rows: list[dict[str, Any]] = [row for pair in find(root) for row in _read_pair(pair, suffixes, skipped)]
        labels, unreadable = labels_of_masks([row["mask_uri"] for row in rows], classes)
        if unreadable:
            skipped["masks that can't be read"] = sorted(unreadable)
        rows = [row | {"labels": own} for row, own in zip(rows, labels, strict=True)]
    else:
        rows = [_with_mask(row, root) for row in exported]
    return Draft(
        table=draft_table(rows),
        source=root,
        root=root,
        classes=classes,
        classes_from=classes_from,
        skipped=skipped,
    )


def _with_mask(row: dict[str, Any], root: str) -> dict[str, Any]:
    kept = {name: row[name] for name in ("image_id", "image_uri", "labels", "split")}
    return kept | {"mask_uri": row["mask"] and storage.join(root, row["mask"])}


def _read_pair(pair: Pair, suffixes: tuple[str, str] | None, skipped: dict[str, list[str]]) -> list[dict[str, Any]]:
    own, other = suffixes or (None, None)
    masks = {
        _stem(uri.relative(place, pair.masks) or "", other): place
        for place in storage.list_files(pair.masks)
        if uri.suffix_of(place) in IMAGE_SUFFIXES
    }
    if isinstance(pair.images, str):
        listing = list_images(pair.images)
        for reason, paths in listing.skipped.items():
            skipped.setdefault(reason, []).extend(paths)
        images = {_stem(path, own): place for path, place in listing.images.items()}
    else:
        images = dict(pair.images)
    return [{"image_uri": place, "split": pair.split, "mask_uri": masks.get(name)} for name, place in images.items()]


def _stem(path: str, suffix: str | None) -> str:
    return path.removesuffix(suffix) if suffix else without_suffix(path)
