"""`raypipe import`: manifests of datasets in other layouts, and masks that come back corrected."""

from enum import StrEnum
from typing import Annotated

import typer

from raypipe import uri
from raypipe.cli_corrected import corrected_coco, corrected_masks, label_studio
from raypipe.cli_import_options import LongImport, importer
from raypipe.formats.coco.read import read_coco_files
from raypipe.formats.containers import SplitsFrom, find_containers
from raypipe.formats.draft import Draft
from raypipe.formats.fiftyone.read import read_fiftyone
from raypipe.formats.folder.read import read_folder
from raypipe.formats.geotiff.read import read_geotiff
from raypipe.formats.label_studio.tasks import read_tasks
from raypipe.formats.labels import LabelReader
from raypipe.formats.mmseg.read import read_mmseg
from raypipe.formats.parquet.read import ParquetReader
from raypipe.formats.table.dialect import Dialect
from raypipe.formats.table.files import find_tables, folder_of
from raypipe.formats.table.read import TableOptions, read_table
from raypipe.formats.voc.read import read_voc
from raypipe.formats.webdataset.read import WebDatasetReader
from raypipe.formats.yolo.read import read_yolo
from raypipe.imports.long_rows import LongOptions

import_app = typer.Typer(no_args_is_help=True, help="Write a manifest of a dataset in another layout.")

Folder = Annotated[str, typer.Argument(help="Folder or URI of the dataset.")]
Containers = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Folder, file or pattern (a-*, a-{000..099}), also as URI.")
]
Split = Annotated[str | None, typer.Option(help="Split of all images.")]
Separator = Annotated[
    str | None, typer.Option(help="Between names in a text of labels; | unless another may be meant.")
]


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


@import_app.command(name="voc")
@importer
def voc(
    root: Folder,
    lists: Annotated[list[str] | None, typer.Option("--list", help="Image list; repeat for several.")] = None,
    labels: Annotated[str | None, typer.Option(help="CSV image_id,labels instead of Annotations.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Keep that many images of each list, for quick turns.")
    ] = None,
) -> Draft:
    """A folder in PASCAL VOC's layout: ImageSets, JPEGImages, Annotations, SegmentationClass."""
    found = read_voc(uri.absolute(root), lists=lists, labels=labels)
    return found if limit is None else found.limit(limit)


@import_app.command(name="folder")
@importer
def folder(
    root: Folder,
    split: Split = None,
    split_folders: Annotated[bool, typer.Option(help="The first level of folders names the split.")] = False,
) -> Draft:
    """A folder per class."""
    return read_folder(uri.absolute(root), split=split, split_folders=split_folders)


@import_app.command(name="coco")
@importer
def coco(
    annotations: Annotated[
        str, typer.Argument(metavar="ANNOTATIONS", help="COCO's JSON file, or a folder of such files, one a split.")
    ],
    images_folder: Annotated[str, typer.Argument(metavar="IMAGES", help="Folder or URI that file names count from.")],
    split: Split = None,
    masks_folder: str | None = None,
) -> Draft:
    """A COCO file: labels, and masks where --masks names a folder for them."""
    return read_coco_files(uri.absolute(annotations), uri.absolute(images_folder), split=split, masks=masks_folder)


@import_app.command(name="yolo")
@importer
def yolo(
    source: Annotated[str, typer.Argument(metavar="DATASET", help="YOLO's data.yaml, or its folder; also as URI.")],
    masks_folder: str | None = None,
) -> Draft:
    """YOLO's polygons: labels, and masks where --masks names a folder for them."""
    return read_yolo(uri.absolute(source), masks=masks_folder)


@import_app.command(name="mmseg")
@importer
def mmseg(root: Folder, names: tuple[str, ...] | None = None) -> Draft:
    """A folder in mmsegmentation's layout: img_dir, ann_dir."""
    return read_mmseg(uri.absolute(root), names=names)


@import_app.command(name="fiftyone")
@importer
def fiftyone(root: Folder, names: tuple[str, ...] | None = None) -> Draft:
    """A folder in FiftyOne's layout for segmentation: data, labels."""
    return read_fiftyone(uri.absolute(root), names=names)


@import_app.command(name="geotiff")
@importer
def geotiff(root: Folder) -> Draft:
    """What `raypipe export geotiff` wrote."""
    return read_geotiff(uri.absolute(root))


@import_app.command(name="labelstudio-tasks")
@importer
def label_studio_tasks(
    source: Annotated[
        str, typer.Argument(metavar="TASKS", help="Label Studio's JSON file, or a folder of such files.")
    ],
    masks_folder: str | None = None,
) -> Draft:
    """Label Studio's tasks as a new dataset: labels, and masks where --masks names a folder for them."""
    return read_tasks(uri.absolute(source), masks=masks_folder)


import_app.command(name="corrected-coco")(corrected_coco)
import_app.command(name="corrected-masks")(corrected_masks)
import_app.command(name="labelstudio")(label_studio)


@import_app.command(name="seeds")
def seeds(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or URI of .npz or Parquet files of maps.")],
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="Manifest of their images.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URI to write into, of this source alone.")],
) -> None:
    """Maps of another program (image_id, classes, maps in [0, 1]) for checkpoints.seeds."""
    from raypipe.pipelines.imports.seeds import import_seeds

    typer.echo(str(import_seeds(source, manifest, out)))
    typer.echo(f"seeds: {out}. In a config: checkpoints.seeds={out}")


@import_app.command(name="table")
@importer
def table(
    source: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV, TSV, JSON lines or Parquet, also compressed; or their folder.")
    ],
    images: Annotated[
        str | None,
        typer.Option(help="Folder or URI in which the images are looked up by name, with or without ending."),
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of image URIs or names.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of labels.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids; else image_id.")] = None,
    multi_hot: Annotated[
        str | None, typer.Option(metavar="a,b,c|*", help="Columns that are a class each, 1 or 0; * for all others.")
    ] = None,
    separator: Separator = None,
    empty_labels: EmptyLabelsOption = EmptyLabels.null,
    delimiter: Annotated[str | None, typer.Option(help="Between cells, where the header doesn't tell it.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of texts, such as cp1252; UTF-8 and marked UTF-16 are known.")
    ] = None,
    split: Split = None,
    long: Annotated[bool, typer.Option("--long", help="A row for each image and tag.")] = False,
    confidence_column: Annotated[
        str | None, typer.Option(help="With --long: column of confidences; else confidence. 0 says: not there.")
    ] = None,
    min_confidence: Annotated[float | None, typer.Option(help="With --long: leave tags of less out.")] = None,
    image_suffix: Annotated[str, typer.Option(help="With --long: appended to images' names, such as .jpg.")] = "",
) -> Draft | LongImport:
    """A table of image URIs, or of names of images in a folder, and labels."""
    dialect = Dialect(delimiter=delimiter, encoding=encoding)
    reader = LabelReader(separator=separator, empty=empty_labels.value)
    place = uri.absolute(source)
    if long:
        tables = find_tables(place)
        wide = LongOptions(
            root=uri.absolute(images) if images else folder_of(place),
            image_column=image_column,
            label_column=label_column,
            confidence_column=confidence_column,
            min_confidence=min_confidence,
            image_suffix=image_suffix,
            dialect=dialect,
            labels=reader,
        )
        return LongImport(source=place, tables=tuple(tables), options=wide, split=split)
    if confidence_column or min_confidence is not None or image_suffix:
        raise ValueError("--confidence-column, --min-confidence and --image-suffix belong to --long")
    options = TableOptions(
        image_column=image_column,
        label_column=label_column,
        id_column=id_column,
        multi_hot=None if multi_hot is None else tuple(name.strip() for name in multi_hot.split(",")),
        dialect=dialect,
        labels=reader,
    )
    found = read_table(place, options)
    return found if split is None else found.with_split(split)


@import_app.command(name="webdataset")
@importer
def webdataset(
    source: Containers,
    labels: Annotated[
        str, typer.Option(help="Ending of the labels' member; of JSON with a field (json:tags); none: no labels.")
    ] = "cls",
    image: Annotated[str | None, typer.Option(help="Ending of the images, if samples have several.")] = None,
    mask: Annotated[str | None, typer.Option(help="Ending of the true masks, such as seg.png.")] = None,
    own_ids: Annotated[
        str | None, typer.Option("--id", help="key, or a member as in --labels; else container and key.")
    ] = None,
    separator: Separator = None,
    empty_labels: EmptyLabelsOption = EmptyLabels.null,
    split: Split = None,
    splits_from: SplitsFromOption = None,
    names: tuple[str, ...] | None = None,
) -> Draft:
    """Tars of samples (7.jpg, 7.cls); images stay where they are."""
    reader = WebDatasetReader(
        image=image,
        labels=None if labels == "none" else labels,
        mask=mask,
        ids=own_ids,
        reader=LabelReader(names=names, separator=separator, empty=empty_labels.value),
    )
    containers = find_containers(source, suffix=".tar", split=split, splits_from=splits_from)
    from raypipe.pipelines.imports.containers import read_containers

    return read_containers(reader, containers, source=source)


@import_app.command(name="parquet")
@importer
def parquet(
    source: Containers,
    image_column: Annotated[
        str | None, typer.Option(help="Column of image files' bytes (image.bytes), if there are several.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of labels; else labels, label, or the only one of class labels.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids; else image_id, or container and row.")] = None,
    mask_column: Annotated[str | None, typer.Option(help="Column of true masks' bytes.")] = None,
    separator: Separator = None,
    empty_labels: EmptyLabelsOption = EmptyLabels.null,
    split: Split = None,
    splits_from: SplitsFromOption = None,
    names: tuple[str, ...] | None = None,
) -> Draft:
    """Parquet files that hold images, as Hugging Face's; images stay where they are."""
    reader = ParquetReader(
        image_column=image_column,
        label_column=label_column,
        id_column=id_column,
        mask_column=mask_column,
        reader=LabelReader(names=names, separator=separator, empty=empty_labels.value),
    )
    containers = find_containers(source, suffix=".parquet", split=split, splits_from=splits_from)
    from raypipe.pipelines.imports.containers import read_containers

    return read_containers(reader, containers, source=source)
