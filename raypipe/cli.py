"""The `raypipe` command: one sub-command a step; each takes a config file and dotted overrides.

raypipe import voc VOC2012 manifest.parquet
raypipe run config.yaml walk.beta=4 out=s3://bucket/run
"""

import re
import sys
from typing import Annotated, Any, Literal

import typer

from raypipe import __version__, storage
from raypipe.cli_config import ConfigFile, Overrides, connect_run, named_seeds, open_run, read_config, tell_differences
from raypipe.cli_export import export, export_model, review
from raypipe.cli_import import import_app
from raypipe.cli_logs import Screen, open_log, the_screen
from raypipe.cli_set_up import describe, doctor, labels, synthetic
from raypipe.cli_show_config import show_config
from raypipe.cli_status import begin_run, show_dry_run, show_end, status
from raypipe.config import to_yaml
from raypipe.messages.codes import INTERRUPTED, WRONG_INPUT

SET_UP, RUN, LOOK, HAND_OVER = "Set up", "Run", "Look", "Hand over"

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
train_app = typer.Typer(no_args_is_help=True, help="Train a network on Ray Train.")
app.add_typer(import_app, name="import", rich_help_panel=SET_UP)
app.add_typer(train_app, name="train", rich_help_panel=RUN)
app.command(rich_help_panel=SET_UP, name="config")(show_config)  # the first panel is that of the first command


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"raypipe {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - the callback does what it asks for
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from: its traceback.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show what goes into the log, too: all that Ray and the workers say.")
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Code that makes the maps: an installed package's name, or module:Class."),
    ] = None,
) -> None:
    """Options of all commands."""
    named_seeds.set(seeds)
    if (screen := the_screen.get()) is not None:
        screen.debug, screen.verbose = debug, verbose
        screen.command = context.invoked_subcommand or screen.command


@app.command(rich_help_panel=RUN)
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved config and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be computed and why, and stop.")] = False,
    retrain: Annotated[
        Literal["none", "decisions", "all"],
        typer.Option(help="Renew, for a manifest that has changed, what gates have decided, or the networks, too."),
    ] = "none",
    reuse_out: Annotated[
        bool, typer.Option("--reuse-out", help="Go on in an `out` that holds a run of another manifest.")
    ] = False,
    retry_quarantined: Annotated[
        Literal["none", "all", "saliency", "seeds", "masks", "segments", "scores"],
        typer.Option(help="Try rows in quarantine again: those of this stage and the ones after it."),
    ] = "none",
) -> None:
    """Do everything: classifier, seeds, affinity, masks, evaluation, report. Goes on where it was interrupted."""
    if print_config:
        typer.echo(to_yaml(read_config(config, overrides)))
        return
    if dry_run:
        read = read_config(config, overrides)
        show_dry_run(read, retrain=retrain, retry_quarantined=retry_quarantined, reuse_out=reuse_out)
        return
    steps = connect_run(
        read_config(config, overrides), retrain=retrain, retry_quarantined=retry_quarantined, whole=True
    )
    begin_run(steps.context, reuse_out=reuse_out)
    _print_scores(steps)
    steps.report()
    show_end(steps.context)


@app.command(rich_help_panel=RUN)
def saliency(config: ConfigFile, overrides: Overrides = None) -> None:
    """Predict saliency maps of the training images that have none; training does so by itself."""
    folder = open_run(config, overrides, until="saliency").predict_saliency().uri
    from raypipe.pipelines.saliency_maps import MANIFEST_FOLDER  # torch takes seconds

    typer.echo(f"maps: {folder}\nmanifest with saliency_uri: {storage.join(folder, MANIFEST_FOLDER)}")


@app.command(rich_help_panel=RUN)
def seeds(config: ConfigFile, overrides: Overrides = None) -> None:
    """Compute class activation maps and trimaps."""
    typer.echo(open_run(config, overrides, until="seeds").make_seeds().uri)


@app.command(rich_help_panel=RUN)
def masks(config: ConfigFile, overrides: Overrides = None) -> None:
    """Compute pseudo-masks."""
    typer.echo(open_run(config, overrides, until="masks").make_masks().uri)


@app.command(rich_help_panel=RUN)
def segment(config: ConfigFile, overrides: Overrides = None) -> None:
    """Segment images, labelled or not, with the segmentation network."""
    typer.echo(open_run(config, overrides, until="segments").segment().uri)


@app.command(rich_help_panel=RUN)
def evaluate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Score maps and masks against true masks, per split and class."""
    _print_scores(open_run(config, overrides, until="scores"), per_class=True)


@app.command(rich_help_panel=RUN)
def sweep(config: ConfigFile, overrides: Overrides = None) -> None:
    """Score many settings of the walk in one pass and choose one, without true masks if there are none.

    With sweep.training, do so for networks that are trained in different ways, and compare those by true masks.
    """
    resolved = read_config(config, overrides)
    if resolved.sweep.training:
        if named_seeds.get() is not None:
            raise ValueError(
                "sweep.training trains in processes of its own, where --seeds isn't known: import the maps"
            )
        from raypipe.trials import run_trials, trials_table

        open_log(resolved.out)
        trials = run_trials(resolved)
        typer.echo(trials_table(trials))
        typer.echo(f"table: {trials.folder}\nconfig for `raypipe run`: {trials.best_config}")
        return
    result = connect_run(resolved, until="affinity").sweep()
    from raypipe.pipelines.walk.sweep import result_table

    typer.echo(result_table(result))
    typer.echo(f"table and plots: {result.folder}\nconfig for `raypipe run`: {result.best_config}")


@app.command(rich_help_panel=RUN)
def calibrate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Write the masks again with the probability of being right as confidence, learned from a few true masks."""
    steps = open_run(config, overrides, until="masks", mostly_done=True)
    from raypipe.pipelines.calibrate import calibration_table

    typer.echo(steps.calibrate().uri)
    typer.echo(calibration_table(steps.fit_confidence()))


@app.command(rich_help_panel=LOOK)
def report(
    config: ConfigFile,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=0, max=100, help="Images of each kind: best, worst, random.")] = 6,
) -> None:
    """Write the HTML report."""
    steps = open_run(config, overrides, until="scores", mostly_done=True, trains=False)
    typer.echo(steps.report(num_samples=samples))


app.command(rich_help_panel=HAND_OVER)(export)
app.command(rich_help_panel=HAND_OVER, name="export-model")(export_model)
app.command(rich_help_panel=LOOK)(review)


@app.command(rich_help_panel=LOOK)
def explain(
    config: ConfigFile,
    image_id: Annotated[str, typer.Argument(metavar="IMAGE_ID", help="The image's, as in the manifest.")],
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

    tell_differences(resolved)
    chosen = None if pixel is None else (int(match[1]), int(match[2]))
    typer.echo(write_explanation(open_context(resolved, seeds=named_seeds.get()), image_id, pixel=chosen))


app.command(rich_help_panel=LOOK)(status)
for command in (labels, describe, doctor, synthetic):
    app.command(rich_help_panel=SET_UP)(command)


@train_app.command(name="classifier")
def train_classifier(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train the classification network."""
    typer.echo(open_run(config, overrides, until="labels").train_classifier().uri)


@train_app.command(name="affinity")
def train_affinity(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train the AffinityNet."""
    artifact = open_run(config, overrides, until="affinity").train_affinity()
    typer.echo(artifact.uri if artifact else "walk.affinity=rgb needs no AffinityNet")


@train_app.command(name="segmenter")
def train_segmenter(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train the segmentation network."""
    typer.echo(open_run(config, overrides, until="segmenter").train_segmenter()[0].uri)


def _print_scores(steps: Any, *, per_class: bool = False) -> None:
    from raypipe.pipelines.evaluate import has_truth
    from raypipe.pipelines.score_tables import class_table, scores_table

    if not has_truth(steps.context):
        typer.echo("no true masks in the manifest (mask_uri): nothing to score")
        return
    typer.echo(scores_table(steps.evaluate()[1]))
    if per_class:
        typer.echo(f"\n{class_table(steps.evaluate()[1])}")


def main() -> None:
    """Entry point: an error is one message with a way out, and a traceback with `--debug` alone."""
    screen = Screen()
    token = the_screen.set(screen)
    screen.interrupt_on_sigterm()
    try:
        code = app(prog_name="raypipe", standalone_mode=False)  # else typer shows errors itself, in frames
        if code == INTERRUPTED:  # typer has taken the interrupt
            screen.fail(KeyboardInterrupt())
        sys.exit(code)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last to hear of it
        if type(error).__name__ == "NoArgsIsHelpError":  # typer has printed the help, and has no public name for it
            sys.exit(WRONG_INPUT)
        sys.exit(screen.fail(error))
    finally:
        the_screen.reset(token)
        screen.close()
