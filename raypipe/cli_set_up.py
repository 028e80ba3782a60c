"""Commands before a run: data to try, labels to count, and whether a machine is enough."""

from typing import Annotated

import typer

from raypipe import storage
from raypipe.cli_config import ConfigFile, Overrides, named_seeds, read_config
from raypipe.data.parts import open_manifest


def synthetic(
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder or URI to write images, masks and manifest.parquet into.")
    ],
    num_images: Annotated[int, typer.Option(min=8, help="Images to make.")] = 320,
    seed: Annotated[int, typer.Option(min=0, help="Other images for another number.")] = 0,
    saliency_errors: Annotated[
        float | None, typer.Option(min=0, max=1, help="Write saliency maps, too, with each kind of error at this rate.")
    ] = None,
) -> None:
    """Generate a dataset of textured objects with exact masks."""
    from raypipe.synthetic.generate import generate

    manifest = generate(out, num_images=num_images, seed=seed, saliency_errors=saliency_errors)
    typer.echo(f"{len(manifest)} images of {', '.join(manifest.classes)}: {storage.join(out, 'manifest.parquet')}")


def labels(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="Manifest's file or folder.")],
    draft_map: Annotated[
        str | None, typer.Option(metavar="CSV", help="Write a draft for --map of `raypipe import`, twins merged.")
    ] = None,
) -> None:
    """Count a manifest's labels: which go together, which may mean the same, which are rare."""
    from raypipe.imports.draft_map import write_map
    from raypipe.imports.label_report import count_labels, report

    found = open_manifest(manifest)
    counted = count_labels((part.read()["labels"] for part in found.parts), found.classes)
    typer.echo(report(counted))
    if draft_map is not None:
        write_map({**dict.fromkeys(found.classes, 0), **counted.counts}, draft_map)
        typer.echo(f"draft of a map: {draft_map}. Change its second column, then import with --map")


def describe(
    config: ConfigFile,
    overrides: Overrides = None,
    machine: Annotated[
        list[str] | None,
        typer.Option(metavar="NODES", help="Nodes to plan for, as nodes=4,cpus=64,gpus=8,memory=512; may be repeated."),
    ] = None,
) -> None:
    """Print what a run would start, here or on a machine that isn't here; 2 and the reason if it doesn't fit."""
    resolved = read_config(config, overrides)
    from raypipe.cluster.connect import connect
    from raypipe.cluster.machines import parse_machine
    from raypipe.doctor.describe import describe_run
    from raypipe.pipelines.context import open_context

    context = open_context(resolved, seeds=named_seeds.get())
    if not machine:
        connect(resolved.cluster)
    nodes = parse_machine(*machine) if machine else context.machine
    typer.echo(describe_run(resolved, context.classes, nodes, provider=context.provider))


def doctor(
    config: ConfigFile,
    overrides: Overrides = None,
    sample: Annotated[int, typer.Option(min=1, help="Images to read and to time.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check storage, networks and cluster before a run, and forecast its hours and bytes; 1 if there is a problem."""
    resolved = read_config(config, overrides)
    from raypipe.doctor.diagnose import diagnose

    diagnosis = diagnose(resolved, num_images=sample, seeds=named_seeds.get())
    typer.echo(diagnosis.to_json() if as_json else str(diagnosis))
    if not diagnosis.healthy:
        raise typer.Exit(1)
