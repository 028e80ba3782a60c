"""Exports of true and of computed masks, through Ray."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from container_files import write_tar
from corpus import encode, photo
from PIL import Image
from stream_outputs import write_masks
from typer.testing import CliRunner

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.cli import app
from raypipe.config import load_config
from raypipe.data.images import decode_image, decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.formats.base import Options
from raypipe.formats.containers import find_containers
from raypipe.formats.voc.write import Voc
from raypipe.formats.webdataset.read import WebDatasetReader
from raypipe.imports.classes import ClassOptions
from raypipe.imports.finish import ImportOptions, finish
from raypipe.outputs.records import MixedOutputs
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.exports import datasets as export
from raypipe.pipelines.exports.datasets import ExportMasks, check_export, export_rows, find_format, run_export
from raypipe.pipelines.imports.containers import read_containers
from raypipe.run import Run
from raypipe.stages.base import Row, with_error_columns
from raypipe.streams.collect import collect


def make_context(manifest: Manifest, *overrides: str) -> Context:
    values = ["out=unused", "manifest=m", "cluster.rows_per_block=8", "cluster.cpu_actors=1", *overrides]
    return Context(load_config("", values), manifest)


def test_true_masks_by_the_command(local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    out = tmp_path / "coco"
    words = ["export", "-", "coco", str(out), f"manifest={synthetic[0]}", f"out={tmp_path / 'run'}", "--masks", "truth"]
    words += ["cluster.cpu_actors=1", "cluster.rows_per_block=8", "--splits", "val"]
    first = CliRunner().invoke(app, words, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    rows = {row["image_id"]: row for row in synthetic[1].table.to_pylist() if row["split"] == "val"}
    assert f"{out}: {len(rows)} of {len(rows)} rows finished, 0 quarantined" in first.stdout
    assert [path.name for path in (out / "annotations").iterdir()] == ["val.json"]
    content = json.loads((out / "annotations/val.json").read_text())
    assert {image["raypipe_id"] for image in content["images"]} == set(rows)
    covered: dict[str, int] = {}
    names = {image["id"]: image["raypipe_id"] for image in content["images"]}
    for annotation in content["annotations"]:
        if not annotation["iscrowd"]:
            image_id = names[annotation["image_id"]]
            covered[image_id] = covered.get(image_id, 0) + annotation["area"]
    for image_id, row in rows.items():
        truth = decode_mask(storage.read_bytes(row["mask_uri"]))
        assert covered[image_id] == np.count_nonzero((truth > 0) & (truth < 255))
    assert list((out / "_raypipe").glob("export/*/index/all/*.parquet"))
    assert not list((out / "_raypipe").glob("export/*/shards/**/*.parquet"))  # joined

    again = CliRunner().invoke(app, words, catch_exceptions=False)
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    with pytest.raises(MixedOutputs, match="holds an export of other rows or masks"):
        run_export(make_context(synthetic[1]), "coco", str(out), masks=None, options=Options())


def test_computed_masks_go_on_after_an_interruption(
    local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confidence = np.full((6, 8), 200, np.uint8)
    confidence[0] = 100
    mask = np.ones((6, 8), np.uint8)
    rows = [
        {"image_id": image_id, "mask": encode_png(mask), "confidence": encode_png(confidence)}
        for image_id in synthetic[1].table["image_id"].to_pylist()[:10]
    ]
    rows[3]["mask"] = encode_png(np.full((6, 8), 77, np.uint8))
    masks = write_masks(str(tmp_path / "masks"), rows)
    context = make_context(synthetic[1])
    arguments: dict[str, Any] = {
        "masks": masks,
        "options": Options(copy_images=True),
        "min_confidence": 0.5,
    }

    def interrupted(*_: object) -> None:
        raise RuntimeError("interrupted")

    with monkeypatch.context() as broken:
        broken.setattr(Voc, "finish", interrupted)
        with pytest.raises(RuntimeError, match="interrupted"):
            run_export(context, "voc", str(tmp_path / "voc"), **arguments)
    out, summary = run_export(context, "voc", str(tmp_path / "voc"), **arguments)
    assert (summary.num_finished, summary.num_quarantined) == (9, 1)
    written = {path.stem: path for path in Path(out, "SegmentationClass").iterdir()}
    assert set(written) == {row["image_id"] for row in rows} - {rows[3]["image_id"]}
    for path in written.values():
        with Image.open(path) as image:
            found = np.array(image)
        assert (found[0] == 255).all()
        assert (found[1:] == 1).all()
    uris = {row["image_id"]: row["image_uri"] for row in synthetic[1].table.to_pylist()}
    for path in Path(out, "JPEGImages").iterdir():
        assert path.read_bytes() == storage.read_bytes(uris[path.stem])
    listed = [name for path in Path(out, "ImageSets/Segmentation").iterdir() for name in path.read_text().split()]
    assert sorted(listed) == sorted(written)


def test_images_and_true_masks_in_tars(
    local_ray: None, tmp_path: Path, jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    mask = encode_png(np.ones((61, 83), np.uint8))
    write_tar(
        tmp_path / "t.tar", {f"{n}.{end}": data for n in range(20) for end, data in (("jpg", jpeg), ("png", mask))}
    )
    reader = WebDatasetReader(labels=None, image="jpg", mask="png", ids="key")
    draft = read_containers(reader, find_containers(str(tmp_path), suffix=".tar"), source=str(tmp_path))
    manifest = finish(draft, ImportOptions(classes=ClassOptions(classes=("cat",)))).manifest
    context = make_context(manifest)
    options = Options(copy_images=True)
    out, summary = run_export(context, "voc", str(tmp_path / "voc"), masks=None, options=options)
    assert (summary.num_finished, summary.num_quarantined) == (20, 0)
    assert {path.name for path in Path(out, "JPEGImages").iterdir()} == {f"{number}.jpg" for number in range(20)}
    assert Path(out, "JPEGImages", "7.jpg").read_bytes() == jpeg
    assert not caplog.records
    run_export(context, "mmseg", str(tmp_path / "mmseg"), masks=None, options=Options())
    assert "20 images lie in tar or Parquet files" in caplog.text


def make_stage(out: Path, *, name: str = "voc", min_confidence: float = 0.5) -> ExportMasks:
    stage = ExportMasks(name=name, classes=("cat",), options=Options(), out=str(out), min_confidence=min_confidence)
    stage.setup("cpu")
    return stage


def process(stage: ExportMasks, **values: object) -> Row:
    mask = encode_png(np.ones((2, 3), np.uint8))
    row = {"image_id": "a", "number": 1, "split": None, "labels": ["cat"], "image_uri": "a.jpg", "mask": mask}
    row |= {"height": 2, "width": 3, "confidence": None, **values}
    (result,) = stage(with_error_columns(pa.Table.from_pylist([row]))).to_pylist()
    return dict(result)


def test_true_masks_have_no_confidence_to_be_too_low(tmp_path: Path) -> None:
    assert process(make_stage(tmp_path))["folder"] == "train"
    with Image.open(tmp_path / "SegmentationClass/a.png") as image:
        assert (np.array(image) == 1).all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"mask": encode_png(np.full((2, 3), 2, np.uint8))}, "class id 2, of 1 class"),
        ({"mask": b"broken"}, "ImageError"),
        ({"confidence": encode_png(np.ones((3, 3), np.uint8))}, r"the mask is \(2, 3\), its confidence \(3, 3\)"),
    ],
)
def test_rows_that_cannot_be_exported_say_why(tmp_path: Path, values: dict[str, object], reason: str) -> None:
    row = process(make_stage(tmp_path), **values)
    assert row["error_stage"] == "ExportMasks"
    assert pa.compute.match_substring_regex(pa.scalar(row["error_reason"]), reason).as_py()
    assert list(tmp_path.iterdir()) == []


def test_masks_that_others_cannot_read_are_for_geotiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_PIXELS", 5)
    row = process(make_stage(tmp_path))
    assert "a mask of 3 x 2 pixels is too large for the readers of voc: export geotiff" in row["error_reason"]


def test_ids_and_splits_never_leave_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    stage = make_stage(out, name="mmseg", min_confidence=0)
    process(stage, image_id="../../x", split="../../../y")
    assert [path for path in tmp_path.rglob("*.png") if out not in path.parents] == []
    assert len(list(out.rglob("*.png"))) == 1


def manifest(mask_uri: str | None = None) -> Manifest:
    row = {"image_id": "a", "image_uri": "a.jpg", "labels": [], "split": "train", "mask_uri": mask_uri}
    return Manifest.from_rows([row, row | {"image_id": "b", "split": "val", "mask_uri": "b.png"}], ["cat"])


def test_rows_keep_their_place_in_the_manifest() -> None:
    assert collect(export_rows(make_context(manifest()), masks=None, splits=["val"])).to_pylist() == [
        {"image_id": "b", "number": 2, "split": "val", "labels": [], "image_uri": "a.jpg", "mask_uri": "b.png"}
    ]


def test_rows_of_several_parts_are_counted_through(tmp_path: Path) -> None:
    rows = [
        {"image_id": str(number), "image_uri": "i.jpg", "labels": [], "mask_uri": "m.png", "split": "abc"[number % 3]}
        for number in range(1, 8)
    ]
    write_manifest(Manifest.from_rows(rows, ["cat"]), str(tmp_path / "manifest"), rows_per_part=3)
    context = open_context(load_config("", ["out=unused", f"manifest={tmp_path}/manifest"]))
    found = collect(export_rows(context, masks=None, splits=["a", "b"])).to_pylist()
    assert [(row["image_id"], row["number"]) for row in found] == [(str(n), n) for n in (1, 3, 4, 6, 7)]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown format 'cocoa': did you mean 'coco'"):
        find_format("cocoa")
    with pytest.raises(ValueError, match=f"no row of any split has a mask in {tmp_path}"):
        export_rows(make_context(manifest()), masks=Artifact(str(tmp_path), "m"), splits=None)
    with pytest.raises(ValueError, match=r"no row of splits \['train'\] has a true mask"):
        export_rows(make_context(manifest()), masks=None, splits=["train"])


def call(tmp_path: Path, manifest: Manifest, *words: str) -> Any:
    write_manifest(manifest, str(tmp_path / "m.parquet"))
    common = [f"manifest={tmp_path / 'm.parquet'}", f"out={tmp_path / 'run'}"]
    return CliRunner().invoke(app, ["export", "-", *words, *common])


def test_another_export_is_refused_before_masks_are_made(
    in_this_process: None, mixed: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "coco")
    run_export(make_context(mixed), "coco", out, masks=None, options=Options())

    def make_masks(_: Run) -> None:
        pytest.fail("masks are made")

    monkeypatch.setattr(Run, "make_masks", make_masks)
    arguments: dict[str, Any] = {"of_truth": True, "options": Options()}
    check_export(make_context(mixed), "coco", out, **arguments)
    check_export(make_context(mixed), "coco", str(tmp_path / "new"), **arguments)
    for name, changed, message in (
        ("yolo", {}, 'format "coco", and not "yolo"'),
        ("coco", {"options": Options(copy_images=True)}, "copy_images false, and not true"),
        ("coco", {"min_confidence": 0.5}, "min_confidence 0.0, and not 0.5"),
        ("coco", {"of_truth": False}, 'masks "true masks", and not'),
    ):
        with pytest.raises(MixedOutputs, match=rf"coco holds another export \({message}.*give another folder"):
            check_export(make_context(mixed), name, out, **arguments | changed)
    result = call(tmp_path, mixed, "coco", out)
    assert isinstance(result.exception, MixedOutputs)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["yolo"], "trainers look for them in images/<split>."),
        (["voc"], "trainers look for them in JPEGImages."),
        (["yolo", "--copy-images"], None),
        (["coco"], None),
    ],
)
def test_images_that_were_not_copied_are_told(
    in_this_process: None, mixed: Manifest, tmp_path: Path, words: list[str], told: str | None
) -> None:
    webp = Manifest(mixed.table.slice(1, 1), mixed.classes)
    result = call(tmp_path, webp, words[0], str(tmp_path / "x"), "--masks", "truth", *words[1:])
    assert "1 of 1 rows finished" in result.stdout
    assert (told is None) == ("no images were copied" not in result.stdout)
    assert told is None or told in result.stdout


def test_what_cannot_be_exported_is_named_with_its_place(
    in_this_process: None, mixed: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = mixed.table.slice(1, 1).to_pylist()[0]
    Path(gone["image_uri"]).unlink()
    for _ in range(2):  # by the run that computes, and by the next, which has nothing to do
        caplog.clear()
        result = call(tmp_path, mixed, "voc", str(tmp_path / "x"), "--masks", "truth", "--copy-images")
        assert "3 of 4 rows finished, 1 quarantined" in result.stdout
        (told,) = [text for text in caplog.messages if text.startswith("not exported")]
        assert told.startswith(f"not exported: {gone['image_id']} (")
        assert list(Path(told.rsplit(" ", 1)[1]).rglob("*.parquet"))


ENDINGS = {"shot #7.png": "PNG", "what?.webp": "WEBP", "50%.jpg": "JPEG", "a.gif": "GIF"}


@pytest.fixture
def mixed(tmp_path: Path) -> Manifest:
    """Images of several kinds, one of them turned by EXIF, with true masks."""
    rows = []
    for name, kind in ENDINGS.items():
        exif = Image.Exif()
        exif[0x0112] = 6 if kind == "JPEG" else 1
        options = {} if kind == "GIF" else {"exif": exif.tobytes()}
        (tmp_path / name).write_bytes(encode(photo(24, 40), kind, **options))
        (tmp_path / f"{name}-mask.png").write_bytes(encode_png(np.ones((24, 40), np.uint8)))
        rows.append({"image_id": name, "image_uri": f"{tmp_path}/{name}", "labels": ["cat"]})
        rows[-1]["mask_uri"] = f"{tmp_path}/{name}-mask.png"
    return Manifest.from_rows(rows, ["cat"])


@pytest.mark.parametrize("name", ["voc", "mmseg"])
def test_images_of_several_endings_become_png(
    in_this_process: None, mixed: Manifest, tmp_path: Path, name: str
) -> None:
    out = str(tmp_path / name)
    with pytest.raises(ValueError, match=r"images of one ending, but there are \.gif 1, \.jpg 1, \.png 1, \.webp 1"):
        run_export(make_context(mixed), name, out, masks=None, options=Options())
    run_export(make_context(mixed), name, out, masks=None, options=Options(copy_images=True))
    with Path(out, "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image_id"]: int(row["number"]) for row in rows} == dict(zip(ENDINGS, range(1, 5), strict=True))
    for row in rows:
        assert row["file"].endswith(".png")
        data = Path(out, row["file"]).read_bytes()
        original = storage.read_bytes(row["image_uri"])
        np.testing.assert_array_equal(decode_image(data).pixels, decode_image(original).pixels)
        assert (data == original) == (row["image_id"] == "shot #7.png")
        assert decode_image(data).pixels.shape[:2] == decode_mask(Path(out, row["mask"]).read_bytes()).shape
    if name == "mmseg":
        assert json.loads(Path(out, "metainfo.json").read_text())["img_suffix"] == ".png"


@pytest.mark.parametrize("name", ["voc", "mmseg"])
def test_images_of_one_ending_keep_it(in_this_process: None, mixed: Manifest, tmp_path: Path, name: str) -> None:
    webp = Manifest(mixed.table.slice(1, 1), mixed.classes)
    for copies in (False, True):
        out = tmp_path / f"{name} {copies}"
        run_export(make_context(webp), name, str(out), masks=None, options=Options(copy_images=copies))
        files = [path for path in out.rglob("*.webp") if "_raypipe" not in path.parts]
        assert [path.read_bytes() for path in files] == [(tmp_path / "what?.webp").read_bytes()] * copies
        if name == "mmseg":
            assert json.loads((out / "metainfo.json").read_text())["img_suffix"] == ".webp"


def test_only_what_yolo_passes_over_becomes_png(in_this_process: None, mixed: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "yolo"
    with pytest.raises(ValueError, match=r"want none of those that end in \.gif, but there are .*--copy-images"):
        run_export(make_context(mixed), "yolo", str(out), masks=None, options=Options())
    run_export(make_context(mixed), "yolo", str(out), masks=None, options=Options(copy_images=True))
    files = sorted(path.suffix for path in (out / "images").rglob("*.*"))
    assert files == [".jpg", ".png", ".png", ".webp"]
    assert {path.parent for path in (out / "images").rglob("*.*")} == {out / "images/train"}


@pytest.mark.parametrize("name", ["coco", "huggingface", "labelstudio", "fiftyone"])
def test_other_formats_take_images_of_any_ending(
    in_this_process: None, mixed: Manifest, tmp_path: Path, name: str
) -> None:
    _, summary = run_export(make_context(mixed), name, str(tmp_path / name), masks=None, options=Options())
    assert (summary.num_finished, summary.num_quarantined) == (4, 0)
    assert (tmp_path / name / "images.csv").exists()
