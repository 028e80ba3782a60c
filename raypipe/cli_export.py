"""`raypipe export`, `raypipe review`, `raypipe export-model`: masks and networks for other tools and for people."""

from typing import Annotated

import typer

from raypipe import storage
from raypipe.cli_config import ConfigFile, Overrides, open_run, tell_differences

Splits = Annotated[list[str] | None, typer.Option("--splits", help="Take this split; repeat for several; else all.")]


def export(
    config: ConfigFile,
    format_name: Annotated[
        str,
        typer.Argument(metavar="FORMAT", help="coco, voc, yolo, mmseg, huggingface, labelstudio, fiftyone or geotiff."),
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URI to write into.")],
    overrides: Overrides = None,
    source: Annotated[str, typer.Option("--masks", help="masks, calibrated (masks) or truth (true masks).")] = "masks",
    splits: Splits = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Ignore pixels of less confidence; true masks have none and stay.")
    ] = 0.0,
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Export the image files too, as they are.")
    ] = False,
    instances: Annotated[
        bool, typer.Option(help="COCO: an annotation a connected component, or one a class of an image.")
    ] = True,
    min_area: Annotated[int, typer.Option(min=1, help="COCO, YOLO: pixels that a component needs.")] = 1,
    tolerance: Annotated[
        float, typer.Option(min=0, help="YOLO: pixels that a corner which is left out may lie off the polygon.")
    ] = 0.0,
) -> None:
    """Write masks in the format of another tool; each format takes the options that it has a use for."""
    if source not in ("masks", "calibrated", "truth"):
        raise typer.BadParameter(f"got {source!r}, allowed are masks, calibrated, truth", param_hint="--masks")
    from raypipe.formats.base import Options
    from raypipe.pipelines.exports.datasets import check_export, make_format, run_export

    options = Options(instances=instances, min_area=min_area, tolerance=tolerance, copy_images=copy_images)
    format_ = make_format(format_name, (), options)  # before Ray starts and hours of masks: a library may be missing
    steps = open_run(config, overrides, until=None if source == "truth" else "masks", mostly_done=True, trains=False)
    tell_differences(steps.config)
    check_export(
        steps.context,
        format_name,
        out,
        of_truth=source == "truth",
        options=options,
        splits=splits,
        min_confidence=min_confidence,
    )
    made = {"masks": steps.make_masks, "calibrated": steps.calibrate, "truth": lambda: None}[source]
    folder, summary = run_export(
        steps.context, format_name, out, masks=made(), options=options, splits=splits, min_confidence=min_confidence
    )
    typer.echo(f"{folder}: {summary}")
    if format_.images_inside and not copy_images:
        typer.echo(
            f"no images were copied: trainers look for them in {format_.image_folder('<split>')}. Bring them there by "
            f"images.csv, or export into another folder with --copy-images, which copies them"
        )


def review(
    config: ConfigFile,
    overrides: Overrides = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Masks to queue.")] = 100,
    splits: Splits = None,
    explain: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="Cards, the first ones, that open what led to their mask; it takes some seconds each."
        ),
    ] = 10,
) -> None:
    """Queue the masks whose correction probably helps most: a gallery, a table and tasks for Label Studio."""
    steps = open_run(config, overrides, until="masks", mostly_done=True, trains=False)
    from raypipe.pages.review import GALLERY_FILE, run_review

    folder, num_images = run_review(
        steps.context,
        masks=steps.make_masks(),
        decisions=steps.decide_gates().decisions,
        num_images=count,
        splits=splits,
        num_explained=explain,
    )
    typer.echo(f"{num_images} masks to review, tasks for Label Studio beside: {storage.join(folder, GALLERY_FILE)}")


def export_model(
    config: ConfigFile,
    out: Annotated[str, typer.Argument(metavar="OUT", help="File or URI to write, model.pt2 or model.onnx.")],
    overrides: Overrides = None,
) -> None:
    """Write the segmentation network as one file, from images to probabilities, for PyTorch (.pt2) or ONNX."""
    from raypipe.formats.exported_model.write import find_model_format

    find_model_format(out)  # before hours of training
    steps = open_run(config, overrides, until="segmenter")
    from raypipe.pipelines.exports.model import export_model as write

    difference = write(steps.context, segmenter=steps.train_segmenter()[0], uri=out)
    typer.echo(f"{out}: probabilities differ by {difference:.2g} at most from the checkpoint's")
