"""Finished runs that tests make in their own process, by the stages and without Ray."""

from collections.abc import Sequence

import torch
from stream_outputs import write_outputs, write_quarantine

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import load_config, to_yaml
from raypipe.data.checkpoints import Checkpoint, read_metadata, write_checkpoint
from raypipe.networks import build_affinity_net, build_classifier
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.masks import masks_plan
from raypipe.schema import MASKS
from raypipe.stages.base import run_stages
from raypipe.streams.collect import collect


def write_networks(folder: str, classes: Sequence[str]) -> dict[str, str]:
    """URIs of a tiny classifier and a tiny AffinityNet with random weights, by task."""
    torch.manual_seed(0)
    networks = {
        "classifier": build_classifier("tiny", num_classes=len(classes)),
        "affinity": build_affinity_net("tiny"),
    }
    for task, network in networks.items():
        checkpoint = Checkpoint(
            task=task,  # type: ignore[arg-type]
            backbone="tiny",
            classes=tuple(classes),
            preprocessing=network.preprocessing.to_dict(),
            config={"section": {"saliency": "none"}},
            weights=network.state_dict(),
        )
        write_checkpoint(checkpoint, storage.join(folder, task))
    return {task: storage.join(folder, task) for task in networks}


def write_run(folder: str, manifest: str, networks: dict[str, str], *overrides: str, first: int | None = None) -> str:
    """Writes a config and the masks that it means; the config's URI.

    Args:
        folder: for both.
        manifest: URI.
        networks: URIs by task, as of `write_networks`.
        overrides: of the config.
        first: so many rows are done; None does all.
    """
    given = [f"checkpoints.{task}={uri}" for task, uri in networks.items()]
    small = ["cams.scales=[1.0]", "walk.num_steps=20", "walk.alpha=1", "refinement.gate=off", "images.max_side=64"]
    config = load_config("", [f"manifest={manifest}", f"out={storage.join(folder, 'out')}", *given, *small, *overrides])
    write_masks(open_context(config), first=first)
    uri = storage.join(folder, "config.yaml")
    storage.write_bytes_atomic(uri, to_yaml(config).encode())
    return uri


def write_masks(context: Context, *, first: int | None = None) -> None:
    """Writes a run's masks, in several shards, and what fails into quarantine; arguments as of `write_run`."""
    given = context.config.checkpoints
    assert given.classifier is not None
    assert given.affinity is not None
    plan = masks_plan(
        context,
        maps=Artifact(given.classifier, read_metadata(given.classifier, task="classifier")["digest"]),
        affinity=Artifact(given.affinity, read_metadata(given.affinity, task="affinity")["digest"]),
    )
    for stage in plan.stages:
        stage.setup("cpu")
    done = run_stages(plan.stages, collect(context.rows(None)).slice(0, first)).to_pylist()
    folder = plan.artifact(context.config.out).uri
    masks = [{name: row[name] for name in MASKS.names} for row in done if row["error_stage"] is None]
    write_outputs(folder, MASKS, masks, rows_per_shard=-(-len(masks) // 2))
    failed = {row["image_id"]: (row["error_stage"], row["error_reason"]) for row in done if row["error_stage"]}
    if failed:
        write_quarantine(folder, failed)
