import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from container_files import counting, picture, places_in, write_tar

from raypipe import storage
from raypipe.formats.containers import Container, Found, find_containers
from raypipe.formats.labels import LabelReader
from raypipe.formats.webdataset.read import WebDatasetReader


def container(path: Path, **options: str) -> Container:
    return Container(uri=str(path), name=path.stem, **options)


def rows(path: Path, members: Mapping[str, bytes], reader: WebDatasetReader | None = None) -> list[dict[str, object]]:
    write_tar(path, members)
    return (reader or WebDatasetReader())(container(path)).rows.to_pylist()


def test_samples_of_classes(tmp_path: Path) -> None:
    tar = tmp_path / "train-0000.tar"
    names = LabelReader(names=("cat", "dog"))
    members = {"a/1.jpg": picture(1), "a/1.cls": b"1\n", "a/2.b.JPG": picture(2), "a/2.jpg": b"x", "a/2.cls": b"cat"}
    found = rows(tar, members, WebDatasetReader(image="jpg", reader=names))
    assert [(row["image_id"], row["labels"]) for row in found] == [
        ("train-0000/a/1", ["dog"]),
        ("train-0000/a/2", ["cat"]),
    ]
    offset, length = places_in(tar)["a/1.jpg"]
    assert found[0]["image_uri"] == f"{tar}#offset={offset}&length={length}&type=jpg"
    assert storage.read_bytes(str(found[0]["image_uri"])) == picture(1)


def test_long_names_and_odd_members(tmp_path: Path) -> None:
    """Names beyond 100 characters have headers of their own; folders, links and hidden files are no members."""
    tar, key = tmp_path / "t.tar", f"{'folder/' * 30}é"
    content = {f"{key}.png": b"image", f"{key}.cls": b"cat", "x/._7.jpg": b"hidden", "README": b"no ending"}
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tar, "w", format=kind) as file:
            folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link.jpg")
            folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "a"
            file.addfile(folder)
            file.addfile(link)
            for name, data in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        [row] = WebDatasetReader()(container(tar)).rows.to_pylist()
        assert row["image_id"] == f"t/{key}"
        assert storage.read_bytes(row["image_uri"]) == b"image"


def test_labels_ids_and_masks_of_members(tmp_path: Path) -> None:
    members = {}
    for number, tags in enumerate((["cat", "dog"], [], None)):
        about = {"id": 100 + number, "about": {"tags": tags}}
        members |= {f"{number}.jpg": b"i", f"{number}.seg.png": b"mask", f"{number}.json": json.dumps(about).encode()}
    reader = WebDatasetReader(labels="json:about.tags", ids="json:id", mask="seg.png")
    found = rows(tmp_path / "t.tar", members, reader)
    assert [row["image_id"] for row in found] == ["100", "101", "102"]
    assert [row["labels"] for row in found] == [["cat", "dog"], [], None]
    assert storage.read_bytes(str(found[2]["mask_uri"])) == b"mask"
    assert str(found[2]["mask_uri"]).endswith("&type=png")
    found = rows(tmp_path / "t.tar", members, WebDatasetReader(labels=None, ids="key", mask="seg.png"))
    assert [(row["image_id"], row["labels"]) for row in found] == [("0", None), ("1", None), ("2", None)]


def test_a_text_of_labels(tmp_path: Path) -> None:
    members = {"1.jpg": b"i", "1.txt": b"cat, dog,cat", "2.jpg": b"i", "2.txt": b"", "3.jpg": b"i"}
    reader = WebDatasetReader(labels="txt", reader=LabelReader(separator=",", empty="none"))
    assert [row["labels"] for row in rows(tmp_path / "t.tar", members, reader)] == [["cat", "dog"], [], None]


def test_samples_without_an_image_are_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", {"1.jpg": b"i", "meta.json": b"{}", "2.cls": b"1"})
    found: Found = WebDatasetReader()(container(tmp_path / "t.tar"))
    assert (found.rows.num_rows, found.num_left_out) == (1, 2)


@pytest.mark.parametrize(
    ("members", "reader", "message"),
    [
        ({"1.jpg": b"", "1.seg.png": b""}, WebDatasetReader(), "several images, jpg, seg.png: name the one to take"),
        ({"1.jpg": b"", "1.JPG": b""}, WebDatasetReader(), "has two members 1.jpg"),
        ({"1.jpg": b"", "1.cls": b"\xff"}, WebDatasetReader(), "cls can't be read as text"),
        ({"1.jpg": b"", "1.json": b"{"}, WebDatasetReader(labels="json:a"), "json can't be read as JSON"),
        ({"1.jpg": b"", "1.json": b"[1]"}, WebDatasetReader(labels="json:a"), "expected a JSON object with the field"),
        ({"1.jpg": b"", "1.json": b'{"a": 1.5}'}, WebDatasetReader(labels="json:a"), "expected class numbers or names"),
        (
            {"1.jpg": b"", "1.cls": b"2"},
            WebDatasetReader(reader=LabelReader(names=("a",))),
            "class number 2, but there",
        ),
        ({"1.jpg": b""}, WebDatasetReader(ids="json:id"), "expected a text or a number as id in 'json:id', got None"),
    ],
)
def test_what_cant_be_read_is_told(
    tmp_path: Path, members: Mapping[str, bytes], reader: WebDatasetReader, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        rows(tmp_path / "t.tar", members, reader)


@pytest.mark.parametrize("damage", [lambda data: b"no tar" * len(data), lambda data: data[:700], lambda data: data[:0]])
def test_a_damaged_tar(tmp_path: Path, damage: object) -> None:
    write_tar(tmp_path / "t.tar", {"1.jpg": bytes(5_000), "2.jpg": b"i"})
    (tmp_path / "t.tar").write_bytes(damage((tmp_path / "t.tar").read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match="is no tar, or it is compressed or damaged"):
        WebDatasetReader()(container(tmp_path / "t.tar"))


def write_index(tar: Path, *, version: str = "v1.2") -> Path:
    """As DALI's wds2idx does."""
    samples: dict[str, list[str]] = {}
    for name, (offset, size) in places_in(tar).items():
        stem, _, ending = name.rpartition("/")[2].partition(".")
        samples.setdefault(f"{name.rpartition('/')[0]}{stem}", []).append(f"{ending} {offset} {size} {name}")
    path = tar.with_suffix(".idx")
    path.write_text("\n".join([f"{version} {len(samples)}", *map(" ".join, samples.values()), ""]))
    return path


def test_an_index_saves_the_pass_over_the_tar(tmp_path: Path) -> None:
    tar = tmp_path / "t.tar"
    members = {
        f"{number}.{ending}": size * b"1" for number in range(50) for ending, size in (("jpg", 200_000), ("cls", 1))
    }
    write_tar(tar, members)
    plain = WebDatasetReader()(container(tar)).rows
    write_index(tar)
    with counting(tmp_path) as server:
        [indexed] = find_containers(f"{server.url}/t.tar", suffix=".tar")
        assert indexed.index == f"{server.url}/t.idx"
        rows = WebDatasetReader()(indexed).rows
        assert server.num_bytes < 10_000
        uris = [uri.replace(server.url, str(tmp_path)) for uri in rows["image_uri"].to_pylist()]
    assert uris == plain["image_uri"].to_pylist()
    assert rows["labels"].equals(plain["labels"])
    assert rows["image_id"].equals(plain["image_id"])


@pytest.mark.parametrize("spoil", ["version", "spaces", "binary", "short"])
def test_an_index_of_another_kind_isnt_used(tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    tar = tmp_path / "t.tar"
    write_tar(tar, {"a b.jpg" if spoil == "spaces" else "a.jpg": b"image", "c.jpg": b"another"})
    index = write_index(tar, version="v1.1" if spoil == "version" else "v1.2")
    if spoil == "binary":
        index.write_bytes(b"\x00\xff" * 8)
    if spoil == "short":
        index.write_text("\n".join(index.read_text().splitlines()[:-1]))
    found = WebDatasetReader(labels=None)(container(tar, index=str(index))).rows
    assert [storage.read_bytes(uri) for uri in found["image_uri"].to_pylist()] == [b"image", b"another"]
    assert "the tar itself is read" in caplog.text


def test_large_members_are_passed_by(tmp_path: Path) -> None:
    """Of members far beyond a request's size, little more than the headers is read."""
    write_tar(tmp_path / "t.tar", {f"{number}.jpg": bytes(12_000_000) for number in range(4)})
    with counting(tmp_path) as server:
        found = WebDatasetReader()(Container(uri=f"{server.url}/t.tar", name="t"))
        assert found.rows.num_rows == 4
        assert server.num_bytes < 4 * 5_000_000
