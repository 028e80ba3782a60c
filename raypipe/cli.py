"""The `raypipe` command: one sub-command a step; each takes a config file and dotted overrides.

raypipe import voc VOC2012 manifest.parquet
raypipe run config.yaml walk.beta=4 out=s3://bucket/run
"""

import logging
import re
import sys
from typing import Annotated, Any

import typer

from raypipe import storage
from raypipe.cli_import import import_app
from raypipe.config import ConfigError, RunConfig, load_config, to_yaml

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
train_app = typer.Typer(no_args_is_help=True, help="Train a network on Ray Train.")
app.add_typer(import_app, name="import")
app.add_typer(train_app, name="train")

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file or URI; - takes the defaults.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Dotted overrides, such as walk.beta=4.")
]


def read_config(config: str, overrides: list[str] | None) -> RunConfig:
    """The resolved config of a file and overrides.

    Raises:
        ConfigError: if it can't be used.
    """
    if config != "-" and not storage.exists(config):
        raise ConfigError(f"there is no config file {config}; `raypipe config` prints one to start from")
    text = "" if config == "-" else storage.read_bytes(config).decode()
    return load_config(text, overrides or [])


def _open(config: str, overrides: list[str] | None) -> Any:
    resolved = read_config(config, overrides)
    from raypipe.run import Run  # torch and ray take seconds to import; --help shouldn't

    return Run(resolved)


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved config and stop.")] = False,
) -> None:
    """Do everything: classifier, seeds, affinity, masks, evaluation, report. Goes on where it was interrupted."""
    if print_config:
        typer.echo(to_yaml(read_config(config, overrides)))
        return
    steps = _open(config, overrides)
    typer.echo(f"masks: {steps.masks.uri}")
    _print_scores(steps)
    typer.echo(f"report: {steps.report}")


@app.command()
def saliency(config: ConfigFile, overrides: Overrides = None) -> None:
    """Predict saliency maps of the training images that have none; training does so by itself."""
    folder = _open(config, overrides).saliency
    typer.echo(f"maps: {folder}\nmanifest with saliency_uri: {storage.join(folder, 'manifest.parquet')}")


@app.command()
def seeds(config: ConfigFile, overrides: Overrides = None) -> None:
    """Compute class activation maps and trimaps."""
    typer.echo(_open(config, overrides).seeds.uri)


@app.command()
def masks(config: ConfigFile, overrides: Overrides = None) -> None:
    """Compute pseudo-masks."""
    typer.echo(_open(config, overrides).masks.uri)


@app.command()
def segment(config: ConfigFile, overrides: Overrides = None) -> None:
    """Segment images, labelled or not, with the segmentation network."""
    typer.echo(_open(config, overrides).segments.uri)


@app.command()
def evaluate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Score maps and masks against true masks, per split and class."""
    _print_scores(_open(config, overrides), per_class=True)


@app.command()
def sweep(config: ConfigFile, overrides: Overrides = None) -> None:
    """Score many settings of the walk in one pass and choose one, without true masks if there are none.

    With sweep.training, do so for networks that are trained in different ways, and compare those by true masks.
    """
    resolved = read_config(config, overrides)
    if resolved.sweep.training:
        from raypipe.trials import run_trials, trials_table

        trials = run_trials(resolved)
        typer.echo(trials_table(trials))
        typer.echo(f"table: {trials.folder}\nconfig for `raypipe run`: {trials.best_config}")
        return
    from raypipe.pipelines.sweep import result_table
    from raypipe.run import Run

    result = Run(resolved).sweep
    typer.echo(result_table(result))
    typer.echo(f"table and plots: {result.folder}\nconfig for `raypipe masks`: {result.best_config}")


@app.command()
def calibrate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Write the masks again with the probability of being right as confidence, learned from a few true masks."""
    steps = _open(config, overrides)
    from raypipe.pipelines.calibrate import calibration_table

    typer.echo(steps.calibrated.uri)
    typer.echo(calibration_table(steps.confidence_map))


@app.command()
def report(config: ConfigFile, overrides: Overrides = None) -> None:
    """Write the HTML report."""
    typer.echo(_open(config, overrides).report)


@app.command()
def export(
    format_name: Annotated[
        str,
        typer.Argument(metavar="FORMAT", help="coco, voc, yolo, mmseg, huggingface, labelstudio or fiftyone."),
    ],
    config: ConfigFile,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URI to write into.")],
    overrides: Overrides = None,
    source: Annotated[str, typer.Option("--masks", help="masks, calibrated (masks) or truth (true masks).")] = "masks",
) -> None:
    """Write masks in the format of another tool; export.* says how."""
    if source not in ("masks", "calibrated", "truth"):
        raise typer.BadParameter(f"got {source!r}, allowed are masks, calibrated, truth", param_hint="--masks")
    from raypipe.pipelines.export import find_format, make_format, run_export

    find_format(format_name)  # before Ray starts
    steps = _open(config, overrides)
    make_format(format_name, steps.context)  # before hours of masks
    artifact = None if source == "truth" else getattr(steps, source)
    uri, digest = (artifact.uri, artifact.digest) if artifact else (None, None)
    folder, summary = run_export(steps.context, format_name, out, masks=uri, masks_digest=digest)
    typer.echo(f"{folder}: {summary}")


@app.command()
def review(
    config: ConfigFile,
    overrides: Overrides = None,
    count: Annotated[int | None, typer.Option(min=1, help="Masks to queue; review.num_images.")] = None,
) -> None:
    """Queue the masks whose correction probably helps most: a gallery, a table and tasks for Label Studio."""
    steps = _open(config, [*(overrides or []), *([] if count is None else [f"review.num_images={count}"])])
    from raypipe.pages.review import GALLERY_FILE, run_review

    folder, num_images = run_review(steps.context, masks=steps.masks.uri, masks_digest=steps.masks.digest)
    typer.echo(f"{num_images} masks to review, tasks for Label Studio beside: {storage.join(folder, GALLERY_FILE)}")


@app.command(name="export-model")
def export_model(
    config: ConfigFile,
    out: Annotated[str, typer.Argument(metavar="OUT", help="File or URI to write: model.pt2 or model.onnx.")],
    overrides: Overrides = None,
) -> None:
    """Write the segmentation network as one file, from images to probabilities, for PyTorch (.pt2) or ONNX."""
    from raypipe.formats.exported_model.write import find_model_format
    from raypipe.pipelines.export_model import export_model as write

    find_model_format(out)  # before hours of training
    steps = _open(config, overrides)
    difference = write(steps.context, segmenter=steps.segmenter.uri, uri=out)
    typer.echo(f"{out}: probabilities differ by {difference:.2g} at most from the checkpoint's")


@app.command()
def describe(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the plan of the streams: stages, resources, columns."""
    from raypipe.pipelines.context import open_context
    from raypipe.run import describe as describe_streams

    typer.echo(describe_streams(open_context(read_config(config, overrides))))


@app.command()
def explain(
    image_id: Annotated[str, typer.Argument(metavar="IMAGE_ID", help="The image's, as in the manifest.")],
    config: ConfigFile,
    overrides: Overrides = None,
    pixel: Annotated[
        str | None, typer.Option(metavar="ROW,COLUMN", help="Pixel whose affinities are shown; else a sure one.")
    ] = None,
) -> None:
    """Show everything that led to one mask of a finished run on one page."""
    match = re.fullmatch(r"(\d+),(\d+)", pixel or "0,0")
    if match is None:
        raise typer.BadParameter(f"got {pixel!r}, needed is ROW,COLUMN, such as 120,80", param_hint="--pixel")
    resolved = read_config(config, overrides)
    from raypipe.pages.explain import write_explanation
    from raypipe.pipelines.context import open_context

    chosen = None if pixel is None else (int(match[1]), int(match[2]))
    typer.echo(write_explanation(open_context(resolved), image_id, pixel=chosen))


@app.command()
def doctor(
    config: ConfigFile,
    overrides: Overrides = None,
    sample: Annotated[int, typer.Option(min=1, help="Images to read and to time.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check storage, networks and cluster before a run, and forecast its hours and bytes; 1 if there is a problem."""
    resolved = read_config(config, overrides)
    from raypipe.doctor.diagnose import diagnose

    diagnosis = diagnose(resolved, num_images=sample)
    typer.echo(diagnosis.to_json() if as_json else str(diagnosis))
    if not diagnosis.healthy:
        raise typer.Exit(1)


@app.command(name="config")
def show_config(
    preset: Annotated[str | None, typer.Option(help="Start from this preset.")] = None, overrides: Overrides = None
) -> None:
    """Print a complete config to start from."""
    base = ["manifest=manifest.parquet", "out=out"]
    typer.echo(to_yaml(load_config(f"preset: {preset}" if preset else "", [*base, *(overrides or [])])))


@train_app.command(name="classifier")
def train_classifier(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train the classification network."""
    typer.echo(_open(config, overrides).classifier.uri)


@train_app.command(name="affinity")
def train_affinity(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train the AffinityNet."""
    artifact = _open(config, overrides).affinity
    typer.echo(artifact.uri if artifact else "walk.affinity=rgb needs no AffinityNet")


@train_app.command(name="segmenter")
def train_segmenter(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train the segmentation network."""
    typer.echo(_open(config, overrides).segmenter.uri)


@app.command()
def synthetic(
    out: Annotated[str, typer.Argument(help="Folder or URI to write images, masks and manifest.parquet into.")],
    num_images: Annotated[int, typer.Option(min=8)] = 320,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    saliency_errors: Annotated[
        float | None, typer.Option(min=0, max=1, help="Write saliency maps, too, with each kind of error at this rate.")
    ] = None,
) -> None:
    """Generate a dataset of textured objects with exact masks."""
    from raypipe.synthetic.generate import generate

    manifest = generate(out, num_images=num_images, seed=seed, saliency_errors=saliency_errors)
    typer.echo(f"{len(manifest)} images of {', '.join(manifest.classes)}: {storage.join(out, 'manifest.parquet')}")


def _print_scores(steps: Any, *, per_class: bool = False) -> None:
    from raypipe.pipelines.evaluate import has_truth
    from raypipe.results import class_table, scores_table

    if not has_truth(steps.context):
        typer.echo("no true masks in the manifest (mask_uri): nothing to score")
        return
    typer.echo(scores_table(steps.scores))
    if per_class:
        typer.echo(f"\n{class_table(steps.scores)}")


def main() -> None:
    """Entry point: what is wrong with the input is one message, not a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("ray").setLevel(logging.WARNING)
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
