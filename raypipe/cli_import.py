"""`raypipe import`: manifests of datasets in other layouts, and masks that come back corrected."""

from typing import Annotated

import typer

from raypipe import storage
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.formats.cams.read import import_cams
from raypipe.formats.coco.read import import_coco
from raypipe.formats.folder.read import import_folder
from raypipe.formats.label_studio.read import import_label_studio
from raypipe.formats.table.read import import_table
from raypipe.formats.voc.read import import_voc

import_app = typer.Typer(no_args_is_help=True, help="Write a manifest of a dataset in another layout.")

Folder = Annotated[str, typer.Argument(help="Folder or URI of the dataset.")]
ManifestFile = Annotated[str, typer.Argument(metavar="MANIFEST", help="Parquet file to write.")]


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
    split: Annotated[str | None, typer.Option(help="Split of all images.")] = None,
    split_folders: Annotated[bool, typer.Option(help="The first level of folders names the split.")] = False,
) -> None:
    """A folder per class."""
    _write(import_folder(root, split=split, split_folders=split_folders), manifest)


@import_app.command(name="coco")
def coco(
    annotations: Annotated[str, typer.Argument(metavar="ANNOTATIONS", help="COCO's JSON file.")],
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Folder or URI that file names count from.")],
    manifest: ManifestFile,
    split: Annotated[str | None, typer.Option(help="Split of all images.")] = None,
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
    folder = masks or storage.join(storage.absolute(out).rsplit("/", 1)[0], "masks")
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
    separator: Annotated[str, typer.Option(help="Between names in a text of labels.")] = "|",
    empty_labels: Annotated[str, typer.Option(help="What an empty text says: null (not labelled) or none.")] = "null",
) -> None:
    """A table of image URIs, or of names of images in a folder, and labels."""
    if empty_labels not in ("null", "none"):
        raise typer.BadParameter(f"got {empty_labels!r}, allowed are null, none", param_hint="--empty-labels")
    found = import_table(
        source,
        images=images,
        skip_missing=skip_missing,
        image_column=image_column,
        label_column=label_column,
        id_column=id_column,
        separator=separator,
        empty_labels="none" if empty_labels == "none" else "null",
    )
    _write(found, manifest)
