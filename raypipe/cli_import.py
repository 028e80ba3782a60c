"""`raypipe import`: manifests of datasets in other layouts, and masks that come back corrected."""

from enum import StrEnum
from typing import Annotated

import typer

from raypipe import storage
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.formats.cams.read import import_cams
from raypipe.formats.coco.read import import_coco
from raypipe.formats.containers import SplitsFrom, find_containers
from raypipe.formats.folder.read import import_folder
from raypipe.formats.label_studio.read import import_label_studio
from raypipe.formats.labels import LabelReader
from raypipe.formats.parquet.read import ParquetReader
from raypipe.formats.table.read import import_table
from raypipe.formats.voc.read import import_voc
from raypipe.formats.webdataset.read import WebDatasetReader
from raypipe.uri import parent

import_app = typer.Typer(no_args_is_help=True, help="Write a manifest of a dataset in another layout.")

Folder = Annotated[str, typer.Argument(help="Folder or URI of the dataset.")]
ManifestFile = Annotated[str, typer.Argument(metavar="MANIFEST", help="Parquet file to write.")]
Containers = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Folder, file or pattern (a-*, a-{000..099}), also as URI.")
]
ClassFile = Annotated[str | None, typer.Option("--classes", help="Text file with a class name a line, in their order.")]
Split = Annotated[str | None, typer.Option(help="Split of all images.")]
Separator = Annotated[str, typer.Option(help="Between names in a text of labels.")]


class EmptyLabels(StrEnum):
    """What an empty text of labels says."""

    null = "null"
    none = "none"


SplitsFromOption = Annotated[
    SplitsFrom | None, typer.Option(help="A container's name (train-00000-of-00004) or first folder says its split.")
]
EmptyLabelsOption = Annotated[
    EmptyLabels, typer.Option(help="What an empty text says: null (not labelled) or none (of the classes).")
]


def _write(manifest: Manifest, uri: str) -> None:
    write_manifest(manifest, uri)
    unlabelled = manifest.table["labels"].null_count
    typer.echo(f"{len(manifest)} images, {len(manifest.classes)} classes, {unlabelled} without labels: {uri}")


@import_app.command(name="voc")
def voc(
    root: Folder,
    manifest: ManifestFile,
    lists: Annotated[list[str] | None, typer.Option("--list", help="Image list; repeat for several.")] = None,
    labels: Annotated[str | None, typer.Option(help="CSV image_id,labels instead of Annotations.")] = None,
    skip_missing: Annotated[bool, typer.Option(help="Leave out listed images that aren't there.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Keep that many images of each list, for quick turns.")
    ] = None,
) -> None:
    """A folder in PASCAL VOC's layout: ImageSets, JPEGImages, Annotations, SegmentationClass."""
    found = import_voc(root, lists=lists, labels=labels, skip_missing=skip_missing)
    _write(found if limit is None else found.limit(limit), manifest)


@import_app.command(name="folder")
def folder(
    root: Folder,
    manifest: ManifestFile,
    split: Split = None,
    split_folders: Annotated[bool, typer.Option(help="The first level of folders names the split.")] = False,
) -> None:
    """A folder per class."""
    _write(import_folder(root, split=split, split_folders=split_folders), manifest)


@import_app.command(name="coco")
def coco(
    annotations: Annotated[str, typer.Argument(metavar="ANNOTATIONS", help="COCO's JSON file.")],
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Folder or URI that file names count from.")],
    manifest: ManifestFile,
    split: Split = None,
    masks: Annotated[str | None, typer.Option(help="Folder or URI to write masks into.")] = None,
    into: Annotated[str | None, typer.Option(help="Manifest whose rows get the masks; else a new one.")] = None,
) -> None:
    """A COCO file: labels, and masks where a folder for them is named."""
    existing = None if into is None else read_manifest(into)
    _write(import_coco(annotations, images, split=split, masks=masks, manifest=existing), manifest)


@import_app.command(name="labelstudio")
def label_studio(
    export: Annotated[str, typer.Argument(metavar="EXPORT", help="Label Studio's JSON export.")],
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="Manifest that the tasks were made from.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Parquet file to write: MANIFEST with the new masks.")],
    masks: Annotated[str | None, typer.Option(help="Folder or URI to write masks into; masks/ beside OUT.")] = None,
) -> None:
    """Masks that were corrected in Label Studio, into the manifest."""
    folder = masks or storage.join(parent(storage.absolute(out)), "masks")
    _write(import_label_studio(export, read_manifest(manifest), masks=folder), out)


@import_app.command(name="cams")
def cams(
    source: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder or URI of .npz or Parquet files.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URI for .npz files.")],
) -> None:
    """Class activation maps of another program (class_ids from 1, cam) for checkpoints.cams."""
    typer.echo(f"maps of {import_cams(source, out)} images: {out}")


@import_app.command(name="table")
def table(
    source: Annotated[str, typer.Argument(metavar="TABLE", help="CSV, JSON lines or Parquet.")],
    manifest: ManifestFile,
    images: Annotated[
        str | None,
        typer.Option(help="Folder or URI in which the images are looked up by name, with or without ending."),
    ] = None,
    skip_missing: Annotated[bool, typer.Option(help="Leave out rows whose image --images doesn't have.")] = False,
    image_column: Annotated[str, typer.Option(help="Column of image URIs or names.")] = "image_uri",
    label_column: Annotated[str, typer.Option(help="Column of labels.")] = "labels",
    id_column: Annotated[str, typer.Option(help="Column of ids, if there is one.")] = "image_id",
    separator: Separator = "|",
    empty_labels: EmptyLabelsOption = EmptyLabels.null,
) -> None:
    """A table of image URIs, or of names of images in a folder, and labels."""
    found = import_table(
        source,
        images=images,
        skip_missing=skip_missing,
        image_column=image_column,
        label_column=label_column,
        id_column=id_column,
        separator=separator,
        empty_labels=empty_labels.value,
    )
    _write(found, manifest)


@import_app.command(name="webdataset")
def webdataset(
    source: Containers,
    manifest: ManifestFile,
    labels: Annotated[
        str, typer.Option(help="Ending of the labels' member; of JSON with a field (json:tags); none: no labels.")
    ] = "cls",
    image: Annotated[str | None, typer.Option(help="Ending of the images, if samples have several.")] = None,
    mask: Annotated[str | None, typer.Option(help="Ending of the true masks, such as seg.png.")] = None,
    ids: Annotated[
        str | None, typer.Option("--id", help="key, or a member as in --labels; else container and key.")
    ] = None,
    classes: ClassFile = None,
    separator: Separator = "|",
    empty_labels: EmptyLabelsOption = EmptyLabels.null,
    split: Split = None,
    splits_from: SplitsFromOption = None,
) -> None:
    """Tars of samples (7.jpg, 7.cls); images stay where they are."""
    names = _read_names(classes)
    reader = WebDatasetReader(
        image=image,
        labels=None if labels == "none" else labels,
        mask=mask,
        ids=ids,
        reader=LabelReader(names=names, separator=separator, empty=empty_labels.value),
    )
    containers = find_containers(source, suffix=".tar", split=split, splits_from=splits_from)
    from raypipe.pipelines.import_containers import import_containers

    _write(import_containers(reader, containers, classes=names), manifest)


@import_app.command(name="parquet")
def parquet(
    source: Containers,
    manifest: ManifestFile,
    image_column: Annotated[
        str | None, typer.Option(help="Column of image files' bytes (image.bytes), if there are several.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of labels; else labels, label, or the only one of class labels.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids; else image_id, or container and row.")] = None,
    mask_column: Annotated[str | None, typer.Option(help="Column of true masks' bytes.")] = None,
    classes: ClassFile = None,
    separator: Separator = "|",
    empty_labels: EmptyLabelsOption = EmptyLabels.null,
    split: Split = None,
    splits_from: SplitsFromOption = None,
) -> None:
    """Parquet files that hold images, as Hugging Face's; images stay where they are."""
    names = _read_names(classes)
    reader = ParquetReader(
        image_column=image_column,
        label_column=label_column,
        id_column=id_column,
        mask_column=mask_column,
        reader=LabelReader(names=names, separator=separator, empty=empty_labels.value),
    )
    containers = find_containers(source, suffix=".parquet", split=split, splits_from=splits_from)
    from raypipe.pipelines.import_containers import import_containers

    _write(import_containers(reader, containers, classes=names), manifest)


def _read_names(uri: str | None) -> tuple[str, ...] | None:
    if uri is None:
        return None
    return tuple(line.strip() for line in storage.read_bytes(uri).decode("utf-8-sig").splitlines() if line.strip())
