import io
import os
import re
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from container_files import counting, picture, write_images
from PIL import Image

from raypipe import storage
from raypipe.formats.containers import Container
from raypipe.formats.labels import LabelReader
from raypipe.formats.parquet.read import ParquetReader


def container(path: Path) -> Container:
    return Container(uri=str(path), name="train", split="train")


def test_what_hugging_face_writes(tmp_path: Path) -> None:
    """Names of classes, -1 for no label, and the images' bytes."""
    path = tmp_path / "p.parquet"
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "label": datasets.ClassLabel(names=["dog", "cat"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["dog", "cat"])),
            "objects": datasets.Sequence({"category": datasets.ClassLabel(names=["x", "y"])}),
        }
    )
    images = [Image.open(io.BytesIO(picture(number))) for number in range(3)]
    data = {
        "image": images,
        "mask": images,
        "label": [1, 0, -1],
        "tags": [[1, 0], [], [0]],
        "objects": [{"category": [1, 1, 0]}, {"category": []}, {"category": [0]}],
    }
    datasets.Dataset.from_dict(data, features=features).to_parquet(path)
    found = ParquetReader(image_column="image", mask_column="mask")(container(path))
    assert found.classes == ("dog", "cat")
    assert found.rows["labels"].to_pylist() == [["cat"], ["dog"], None]
    assert found.rows["image_id"].to_pylist() == ["train/0", "train/1", "train/2"]
    assert set(found.rows["split"].to_pylist()) == {"train"}
    expected = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    decoded = expected.cast_column("image", datasets.Image(decode=False)).cast_column(
        "mask", datasets.Image(decode=False)
    )
    for name in ("image", "mask"):
        uris = found.rows[f"{name}_uri"].to_pylist()
        assert [storage.read_bytes(uri) for uri in uris] == [each["bytes"] for each in decoded[name]]
    tags = ParquetReader(image_column="image", label_column="tags")(container(path))
    assert tags.rows["labels"].to_pylist() == [["cat", "dog"], [], ["dog"]]
    objects = ParquetReader(image_column="image", label_column="objects.category")(container(path))
    assert objects.rows["labels"].to_pylist() == [["y", "x"], [], ["x"]]
    assert objects.classes == ("x", "y")


def test_plain_files(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    table = pa.table({"jpg": [b"a", b"b", b"c"], "image_id": [7, 8, 9], "labels": ["cat|dog", "", None]})
    pq.write_table(table, path, row_group_size=2)
    found = ParquetReader(reader=LabelReader(empty="none"))(container(path))
    assert found.classes is None
    assert found.rows["image_id"].to_pylist() == ["7", "8", "9"]
    assert found.rows["labels"].to_pylist() == [["cat", "dog"], [], None]
    assert found.rows["image_uri"].to_pylist() == [
        f"{path}#column=jpg&row={row}&group={group}" for row, group in ((0, 0), (1, 0), (2, 1))
    ]
    assert [storage.read_bytes(uri) for uri in found.rows["image_uri"].to_pylist()] == [b"a", b"b", b"c"]


def test_without_labels(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [b"a"]}), tmp_path / "p.parquet")
    assert ParquetReader()(container(tmp_path / "p.parquet")).rows["labels"].to_pylist() == [None]


def test_images_arent_read(tmp_path: Path) -> None:
    images = [os.urandom(100_000) for _ in range(50)]
    write_images(tmp_path / "p.parquet", images, label=pa.array([0, 1] * 25), rows_per_group=10)
    with counting(tmp_path) as server:
        found = ParquetReader()(Container(uri=f"{server.url}/p.parquet", name="p"))
        assert server.num_bytes < 150_000
    assert found.rows["labels"].to_pylist()[:2] == [["cat"], ["dog"]]
    assert found.rows["image_uri"].to_pylist()[49] == (
        f"{server.url}/p.parquet#column=image.bytes&row=49&group=4&type=png"
    )


@pytest.mark.parametrize(
    ("columns", "reader", "message"),
    [
        ({"a": [b"1"], "b": [b"2"]}, ParquetReader(), "found a, b among a, b: name it by --image-column"),
        ({"path": ["1"]}, ParquetReader(), "found none among path"),
        ({"a": [b"1"]}, ParquetReader(image_column="b"), "no column 'b' of bytes; there are a"),
        ({"a": [b"1"], "n": [1]}, ParquetReader(mask_column="n"), "no column 'n' of bytes"),
        ({"a": [b"1"], "tag": ["x"]}, ParquetReader(label_column="tags"), "no column 'tags': did you mean 'tag'?"),
        (
            {"a": [b"1"], "label": [1.5]},
            ParquetReader(),
            "row 0 (counted from 0): expected class numbers or names, got",
        ),
        (
            {"a": [b"1"], "label": [3]},
            ParquetReader(reader=LabelReader(names=("x",))),
            "class number 3, but there are 1",
        ),
    ],
)
def test_what_doesnt_fit_is_told(
    tmp_path: Path, columns: dict[str, list[object]], reader: ParquetReader, message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=re.escape(message)):
        reader(container(tmp_path / "p.parquet"))


def test_a_damaged_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [b"1"] * 100, "label": ["x"] * 100}), tmp_path / "p.parquet")
    data = (tmp_path / "p.parquet").read_bytes()
    labels = pq.read_metadata(tmp_path / "p.parquet").row_group(0).column(1).dictionary_page_offset
    for broken, message in ((data[:-4], "cut off"), (data[:labels] + bytes(40) + data[labels + 40 :], "damaged")):
        (tmp_path / "p.parquet").write_bytes(broken)
        os.utime(tmp_path / "p.parquet", (len(message), len(message)))
        with pytest.raises(ValueError, match=message):
            ParquetReader()(container(tmp_path / "p.parquet"))
