"""Whether true masks mean what their ids say."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.formats.draft import Draft, draft_table
from raypipe.imports.account import Account
from raypipe.imports.classes import ClassOptions, decide_classes
from raypipe.imports.label_column import LabelColumn
from raypipe.imports.truth import MaskOptions, check_maps, check_masks


def encoded(values: Any, *, mode: str | None = None, palette: Sequence[int] = ()) -> bytes:
    image = Image.fromarray(np.array(values, np.uint8))
    if palette:
        image.putpalette(list(palette))
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, "PNG")
    return buffer.getvalue()


def square(value: int) -> list[list[int]]:
    return [[0, 0, 0, 0], [0, value, value, 0], [0, value, value, 0]]


def check(
    base: Path,
    masks: Sequence[Any],
    labels: Sequence[Sequence[str] | None],
    *,
    classes: Mapping[str, Any] | None = None,
    stated: Sequence[str] | None = None,
    known: Sequence[str] = (),
    colors: Mapping[tuple[int, int, int], int] | None = None,
    given_colors: Mapping[tuple[int, int, int], int] | None = None,
    **options: Any,
) -> tuple[list[Any], str]:
    """Masks as the manifest has them, and the account; a mask is rows of values, bytes, or None for no mask."""
    uris: list[str | None] = []
    for number, mask in enumerate(masks):
        place = base / f"read/{number}.png"
        place.parent.mkdir(exist_ok=True)
        if mask is not None and mask != "absent":
            place.write_bytes(mask if isinstance(mask, bytes) else encoded(mask))
        uris.append(None if mask is None else str(place))
    draft = Draft(
        table=draft_table([]), source="t", root=str(base), classes=None if stated is None else tuple(stated),
        colors=colors,
    )  # fmt: skip
    column = LabelColumn.of(pa.chunked_array([pa.array(labels, pa.list_(pa.string()))]))
    account = Account()
    decided = decide_classes(column, draft, ClassOptions(**(classes or {})), known=known, account=account)
    options = {"folder": str(base / "written"), "colors": given_colors, **options}
    ids = [str(number) for number in range(len(masks))]
    found = check_masks(draft, uris, ids, decided, MaskOptions(**options), account)
    for old, new in zip(uris, found, strict=True):
        assert new is None or new == old or new.startswith(f"{base}/written/")
    return [one and decode_mask(storage.read_bytes(one)).tolist() for one in found], str(account)


@pytest.mark.parametrize(
    ("values", "labels", "stated"),
    [
        ([1, 2], [["cat"], ["dog"]], None),
        ([2, 1], [["cat"], ["dog"]], ["dog", "cat"]),
        ([1, 2, 255], [["cat"], ["dog"], ["cat"]], None),
        ([1, 2, 0], [["cat"], ["dog"], []], None),
        ([1, 2, 0], [["cat"], ["dog"], ["cat"]], None),
        ([1, 2, 1], [["cat"], ["dog"], None], None),
        ([2, 1], [["dog", "cat"], ["dog", "cat"]], None),
        ([3, 3], [["cat"], ["cat"]], ["x", "y", "cat"]),
        ([254, 1], [["c254"], ["c001"]], [f"c{k:03d}" for k in range(1, 255)]),
        ([2, 10], [["2"], ["10"]], [str(k) for k in range(1, 11)]),
    ],
)
def test_masks_that_agree_stay_as_they_are(tmp_path: Path, values: Any, labels: Any, stated: Any) -> None:
    found, account = check(tmp_path, [square(value) for value in values], labels, stated=stated)
    assert found == [square(value) for value in values]
    assert not (tmp_path / "written").exists()
    assert f"true masks: {len(values)} of {len(values)} looked at; ids 0 in {len(values)}" in account


@pytest.mark.parametrize(
    ("masks", "labels", "options", "message"),
    [
        ([square(2), square(1)], [["cat"], ["dog"]], {}, r"2 of 2 true masks.*has (cat|dog), its .*1 cat, 2 dog"),
        ([square(1), square(3)], [["cat"], ["dog"]], {}, r"has the values \[3\], which are no .*--classes a,b,c"),
        ([square(255)] * 3, [["cat"]] * 3, {}, r"all 3 .* 0 and 255 only.*--mask-values 255=cat.*255=ignore"),
        ([square(255)] * 3, [None, ["cat"], None], {}, r"0 and 255 only"),
        ([[[255, 255]]] * 2, [["cat"]] * 2, {}, r"0 and 255 only"),
        ([square(0)] * 3, [["cat"]] * 3, {}, r"hold 0 only, the background.*--mask-values 0=background"),
        ([square(1)] * 2, [[], ["cat"]], {}, r"1 of 2 .*has cat, its labels say none"),
        ([square(128)] * 2, [["cat"]] * 2, {}, r"the values \[128\]"),
        ([encoded(square(1), mode="RGB")], [["cat"]], {}, r"mode RGB.*labelmap\.txt"),
        ([encoded(square(1), mode="RGBA")], [["cat"]], {}, r"mode RGBA.*labelmap\.txt"),
        ([encoded(square(1), mode="1")], [["cat"]], {}, r"grey of fewer than 8 bits"),
        ([encoded(square(1), mode="I;16")], [["cat"]], {}, r"mode I;16"),
        ([b"no image", square(1)], [["cat"], ["cat"]], {}, r"not an image in a supported format"),
        ([b"", square(1)], [["cat"], ["cat"]], {}, "the file is empty"),
        (["absent", square(1)], [["cat"], ["cat"]], {}, r"1 of 2 .* can't be read.*read/0\.png.*mend the column"),
        ([square(1)], [["cat"]], {"values": {1: "cow"}}, r"names 'cow', which is no class: known are cat"),
        ([square(2)], [["cat"]], {"values": {1: "cat"}}, r"the values \[2\]"),
        ([square(1)], [["cat"]], {"stated": ["cat"], "known": ["x"], "folder": None}, "--masks"),
    ],
)  # fmt: skip
def test_masks_that_contradict(tmp_path: Path, masks: Any, labels: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        check(tmp_path, masks, labels, **options)
    assert len(str(refused.value)) < 1_000


def test_a_few_contradictions_are_said(tmp_path: Path) -> None:
    masks = [square(1)] * 39 + [square(2)]
    found, account = check(tmp_path, masks, [["cat"]] * 40, stated=["cat", "dog"])
    assert found == masks
    assert "1 of 40 true masks that were looked at have a class that their image's labels don't name" in account
    with pytest.raises(ValueError, match="3 of 40"):
        check(tmp_path, [square(1)] * 37 + [square(2)] * 3, [["cat"]] * 40, stated=["cat", "dog"])


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({"values": {255: "cat"}}, [255, 255], [1, 1]),
        ({"values": {255: "cat", 128: "ignore"}}, [255, 128], [1, 255]),
        ({"values": {0: "cat", 255: "background"}}, [255, 0], [0, 1]),
        ({"values": {1: "dog", 2: "cat"}}, [2, 1], [1, 2]),
        ({"values": {255: "ignore"}}, [255, 255], [255, 255]),
        ({"values": {100: "cat", 200: "dog"}}, [100, 200], [1, 2]),
        ({"classes": {"map": {"cat": "pet", "dog": "pet"}}}, [1, 2], [1, 1]),
        ({"classes": {"map": {"cat": None}}}, [1, 2], [0, 1]),
        ({"classes": {"map": {"cat": None}, "dropped": 255}}, [1, 2], [255, 1]),
        ({"classes": {"top": 1, "dropped": 255}}, [1, 2], [1, 255]),
        ({"classes": {"map": {"cat": "zebra"}}}, [1, 2], [2, 1]),
        ({"stated": ["dog", "cat"], "classes": {"classes": ("cat", "dog")}}, [2, 1], [1, 2]),
        ({"known": ["dog"], "classes": {"classes": ("cat", "dog")}}, [1, 2], [2, 1]),
        ({"known": ["x", "cat", "dog"], "stated": ["cat", "dog"]}, [1, 2], [2, 3]),
        ({"known": ["x"], "classes": {"map": {"cat": "x", "dog": None}, "dropped": 255}}, [1, 2], [1, 255]),
        ({"values": {7: "cat", 8: "dog"}, "classes": {"map": {"cat": "pet"}}, "known": ["dog"]}, [7, 8], [2, 1]),
        ({"values": {7: "cat", 8: "dog"}, "known": ["dog"]}, [7, 8], [2, 1]),
    ],
)
def test_ids_are_written_anew(tmp_path: Path, options: Any, values: list[int], expected: list[int]) -> None:
    labels = [["cat"], ["dog"]]
    if options.get("values", {}).keys() & {0, 255} or 255 in expected:
        labels = [["cat", "dog"], ["cat", "dog"]]
    elif values == [255, 128]:
        labels = [["cat"], ["dog"]]
    found, _ = check(tmp_path, [square(value) for value in values], labels, **options)
    inverted = options.get("values", {}).get(0) == "cat"
    for mask, value, new in zip(found, values, expected, strict=True):
        assert mask[1][1] == new, (value, mask)
        assert mask[0][0] == (1 if inverted else 0)


@pytest.mark.parametrize(
    ("known", "values", "labels", "options", "meaning"),
    [
        (["dog", "cup", "cat"], [3, 1], [["cat"], ["dog"]], {}, "1 dog, 2 cup, 3 cat"),
        (["dog"], [2, 1], [["cat"], ["dog"]], {}, "1 dog, 2 cat"),
        (["dog", "cat"], [2, 1], [["kitty"], ["dog"]], {"map": {"kitty": "cat"}}, "1 dog, 2 cat"),
    ],
)
def test_ids_of_rows_for_a_manifest_are_its_own(
    tmp_path: Path, known: list[str], values: list[int], labels: Any, options: Any, meaning: str
) -> None:
    masks = [square(value) for value in values]
    found, account = check(tmp_path, masks, labels, known=known, classes=options)
    assert found == masks
    assert not (tmp_path / "written").exists()
    assert f"; they are taken as {meaning}" in account
    with pytest.raises(ValueError, match=rf"ids are taken as {meaning}\..*--classes a,b,c"):
        check(tmp_path, masks[::-1], labels, known=known, classes=options)


def test_rows_without_a_mask_stay_so(tmp_path: Path) -> None:
    found, account = check(
        tmp_path,
        [None, square(1), None],
        [["cat"], ["cat"], None],
        classes={"map": {"cat": "pet"}, "classes": ("cat",)},
        known=["x"],
    )
    assert [one and one[1][1] for one in found] == [None, 2, None]
    assert "masks with the manifest's ids, written into" in account
    assert check(tmp_path, [None], [["cat"]]) == ([None], "")


def test_masks_that_fail_when_they_are_written_anew(tmp_path: Path) -> None:
    masks = [square(1)] * 39 + ["absent"]
    found, account = check(tmp_path, masks, [["cat"]] * 40, known=["x"], stated=["cat"])
    assert [one is None for one in found] == [False] * 39 + [True]
    assert "1 mask that can't be used; without them, rows have no mask" in account


def test_masks_that_are_read_are_never_overwritten(tmp_path: Path) -> None:
    masks = [square(1), square(1)]
    with pytest.raises(ValueError, match=r"holds some that are read, such as .*read/0\.png: name another folder"):
        check(tmp_path, masks, [["cat"]] * 2, known=["x"], stated=["cat"], folder=str(tmp_path / "read"))
    assert (tmp_path / "read/0.png").read_bytes() == encoded(square(1))


COLORS = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2}
PALETTE = (0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0)


def colored(color: tuple[int, int, int]) -> bytes:
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[1:, 1:3] = color
    return encoded(pixels)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(
    ("mask", "value"),
    [
        (colored((128, 0, 0)), 1),
        (colored((0, 128, 0)), 2),
        (colored((224, 224, 192)), 255),
        (encoded(square(2), palette=PALETTE), 2),
        (encoded(square(1), palette=(0, 0, 0, 0, 128, 0)), 2),
        (square(2), 2),
    ],
)
def test_colours(tmp_path: Path, stated: bool, mask: Any, value: int) -> None:
    """Those of the data's own labelmap, or of one that --classes names."""
    options: dict[str, Any] = {"stated": ["dog", "cat"]} if stated else {"classes": {"classes": ("dog", "cat")}}
    labels = [["cat", "dog"], ["cat", "dog"]]
    if stated:
        found, _ = check(tmp_path, [mask, colored((128, 0, 0))], labels, colors=COLORS, **options)
    else:
        found, _ = check(tmp_path, [mask, colored((128, 0, 0))], labels, given_colors=COLORS, **options)
    assert found == [square(value), square(1)]


def test_a_colour_of_no_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"colours that no class has: 1,2,3"):
        check(tmp_path, [colored((1, 2, 3))], [["cat"]], stated=["cat", "dog"], colors=COLORS)


@pytest.mark.parametrize(("there", "absent", "refused"), [(3, 0, False), (0, 1, True), (40, 1, False), (18, 1, True)])
def test_saliency_maps(tmp_path: Path, there: int, absent: int, refused: bool) -> None:
    for number in range(there):
        (tmp_path / f"{number}.png").touch()
    uris = [None, *(f"{tmp_path}/{number}.png" for number in range(there + absent))]
    if refused:
        with pytest.raises(ValueError, match=rf"{absent} of {there + absent} saliency maps .*/{there}\.png"):
            check_maps(uris)
    else:
        check_maps(uris)
    check_maps([None])


def test_thousands_of_masks_are_looked_at_by_a_sample(tmp_path: Path) -> None:
    account = check(tmp_path, [square(1)] * 1_000, [["cat"]] * 1_000)[1]
    assert "true masks: 64 of 1,000 looked at" in account
