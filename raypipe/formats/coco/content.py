"""Opens a COCO file and leaves out what can't be used, such as annotations of no image: one bad item refuses no file.

https://cocodataset.org/#format-data.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from raypipe.formats.json_file import read_json, take
from raypipe.formats.quote import quote

_RESERVED = ("background", "ignore", "void")


@dataclass
class Coco:
    """A COCO file, with what can't be used left out."""

    source: str
    names: dict[int, str]
    """Class names by category id, in the order of the ids; several ids may have the same name."""
    groups: dict[str, str]
    """The supercategory of each class that has one."""
    images: list[dict[str, Any]]
    """As in the file, one for each file name."""
    annotations: list[list[dict[str, Any]] | None]
    """Of each image, with a category that `names` has, and `iscrowd`; None where the file has no annotations at all."""
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their ids; the background, which some programs write as a category, is none."""
        return tuple(dict.fromkeys(name for name in self.names.values() if name.casefold() != "background"))


def open_coco(annotations: str) -> Coco:
    """Reads a COCO file, and leaves out what can't be used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't COCO's, or no category is left.
    """
    content = read_json(annotations)
    listed = take(content, "images", list, place=annotations)
    regions = content.get("annotations")
    coco = Coco(annotations, {}, {}, [], [])
    _read_categories(coco, content)
    first_of: dict[str, int] = {}
    position: dict[str, int] = {}
    for index, image in enumerate(listed):
        place = f"{annotations}: images[{index}]"
        name = image.get("file_name") if isinstance(image, dict) else None
        number = _key(image.get("id")) if isinstance(image, dict) else None
        if not isinstance(name, str) or not name.strip() or number is None:
            coco.skipped["images without an id or a file name"].append(place)
        elif number in position:
            coco.skipped["images whose id another image has"].append(f"{name} ({number})")
        elif name in first_of:
            coco.skipped["images that are named again; their annotations are joined"].append(name)
            position[number] = first_of[name]
        else:
            position[number] = first_of[name] = len(coco.images)
            coco.images.append(image)
            coco.annotations.append(None if regions is None else [])
    if regions is None:
        coco.notes.append(f"{annotations} has no annotations: its images are without labels")
        return coco
    categories = {str(number): number for number in coco.names}
    regions = take(content, "annotations", list, place=annotations)
    for index, annotation in enumerate(regions):
        place = f"annotations[{index}]"
        image, category = (
            (_key(annotation.get(name)) for name in ("image_id", "category_id"))
            if isinstance(annotation, dict)
            else (None, None)
        )
        if image not in position:
            coco.skipped["annotations of no image"].append(place)
        elif category not in categories:
            coco.skipped["annotations of no category"].append(f"{place}: {quote(annotation.get('category_id'))}")
        else:
            own = coco.annotations[position[image]]
            assert own is not None
            crowd = str(annotation.get("iscrowd")).strip().lower() in ("1", "1.0", "true")
            own.append({**annotation, "category_id": categories[category], "iscrowd": crowd})
    if regions and not any(coco.annotations):
        reasons = {reason: names for reason, names in coco.skipped.items() if reason.startswith("annotations")}
        told = "; ".join(f"{len(names):,} {reason}, such as {names[0]}" for reason, names in reasons.items())
        raise ValueError(f"{annotations}: none of its annotations can be used: {told}")
    _drop_unused(coco)
    return coco


def _key(value: Any) -> str | None:
    """An id as a text, so that 7, 7.0 and "7" are the same; None for what is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None if isinstance(value, int | str) and not isinstance(value, bool) else None


def _read_categories(coco: Coco, content: Any) -> None:
    found: dict[int, str] = {}
    for index, category in enumerate(take(content, "categories", list, place=coco.source)):
        place = f"{coco.source}: categories[{index}]"
        own = _key(category.get("id")) if isinstance(category, dict) else None
        if own is None or not re.fullmatch(r"-?[0-9]{1,18}", own):
            raise ValueError(f"{place}: expected an object with a whole number as 'id', got {quote(category)}")
        number = int(own)
        name = category.get("name")
        name = str(number) if name is None or not str(name).strip() else str(name).strip()
        if found.setdefault(number, name) != name:
            raise ValueError(
                f"{place}: the id {number} is that of {found[number]!r} already: give each an id of its own"
            )
        group = category.get("supercategory")
        if isinstance(group, str) and group.strip() and group != "none":
            coco.groups[name] = group.strip()
    if not found:
        raise ValueError(f"{coco.source} has no categories")
    coco.names = dict(sorted(found.items()))
    if len(coco.classes) < len(coco.names):
        names = list(coco.names.values())
        twice = sorted({name for name in names if names.count(name) > 1})
        coco.notes.append(f"several categories have the same name and are one class: {', '.join(twice[:5])}")


def _drop_unused(coco: Coco) -> None:
    """Drops categories that no annotation has and that are no classes: the root of others, and the background."""
    used = {one["category_id"] for own in coco.annotations for one in own or ()}
    roots = {group for name, group in coco.groups.items() if group != name}
    for number, name in list(coco.names.items()):
        if number not in used and (name in roots or name.casefold() in _RESERVED) and len(coco.names) > 1:
            del coco.names[number]
            coco.groups.pop(name, None)
            coco.skipped["unused categories that stand for groups of others or for the background"].append(name)
