"""The method's stages with their settings from the config, each made in one place."""

from typing import Literal

from raypipe.artifacts import Artifact
from raypipe.config import RunConfig
from raypipe.ops.dense_crf import COMPAT_BILATERAL
from raypipe.pipelines.context import Context
from raypipe.stages.base import Stage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.decode import DecodeImages
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.fetch import FetchImages
from raypipe.stages.given_cams import LoadGivenCams
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks
from raypipe.stages.refine_on_device import RefineOnDevice
from raypipe.stages.trimaps import MakeTrimaps
from raypipe.stages.trimaps_on_device import MakeTrimapsOnDevice

PIXELS_PER_PASS = 8_000_000
"""Of one pass in throughput mode, mirror images not counted: what fits into an accelerator's memory."""


def pixels_per_pass(config: RunConfig) -> int | None:
    """Pixels that images may share a pass up to; None takes every image alone, whatever else there is."""
    return PIXELS_PER_PASS if config.inference.mode == "throughput" else None


def fetch_images(context: Context) -> FetchImages:
    """Image bytes and class ids."""
    return FetchImages(classes=context.classes)


def decode_images(context: Context) -> DecodeImages:
    """Pixels and sizes."""
    return DecodeImages(max_side=context.config.images.max_side)


def compute_cams(context: Context, maps: Artifact) -> Stage:
    """Class activation maps (§3.1): of a classifier, or those that the config names.

    Args:
        context: config and manifest.
        maps: the classifier's checkpoint, or the folder of given maps.
    """
    config = context.config
    if config.checkpoints.cams is not None:
        return LoadGivenCams(maps=maps, out_stride=config.cams.out_stride)
    return ComputeCams(
        classifier=maps,
        cams=config.cams,
        max_side=config.images.max_side,
        precision=config.precision,
        pixels_per_pass=pixels_per_pass(config),
    )


def make_trimaps(context: Context) -> MakeTrimaps | MakeTrimapsOnDevice:
    """Confident areas (§3.2)."""
    config = context.config
    stage = MakeTrimaps if config.refinement.device == "cpu" else MakeTrimapsOnDevice
    return stage(splits=config.splits.train, trimaps=config.trimaps, max_side=config.images.max_side)


def propagate_cams(context: Context, affinity: Artifact | None) -> PropagateCams:
    """The random walk (§3.4).

    Args:
        context: config and manifest.
        affinity: the AffinityNet's checkpoint; None walks along plain colours.
    """
    config = context.config
    return PropagateCams(
        affinity=affinity,
        alpha=config.walk.alpha,
        beta=config.walk.beta,
        num_steps=config.walk.num_steps,
        radius=config.affinity.radius,
        count_padding=config.walk.count_padding,
        cam_stride=config.cams.out_stride,
        max_side=config.images.max_side,
        precision=config.precision,
        pixels_per_pass=pixels_per_pass(config),
    )


def gate_walk(context: Context, affinity: Artifact | None, *, keep_better: bool) -> GateWalk:
    """The random walk, judged; arguments as of `propagate_cams` and `GateWalk`."""
    walk = propagate_cams(context, affinity)
    return GateWalk(walk=walk, keep_better=keep_better, pixels_per_pass=walk.pixels_per_pass)


def refine_masks(context: Context) -> tuple[Stage, ...]:
    """From walked scores to masks."""
    refinement = context.config.refinement
    if refinement.method == "none":
        return refining(context, "none")
    if refinement.method == "pamr":
        return refining(context, "pamr", power=refinement.power)
    return refining(context, "dcrf", power=refinement.power, compat_bilateral=refinement.compat_bilateral)


def refining(
    context: Context,
    method: Literal["none", "dcrf", "pamr"],
    *,
    power: float = 1.0,
    compat_bilateral: float = COMPAT_BILATERAL,
) -> tuple[Stage, ...]:
    """From scores to masks on the CPU, or with `refinement.device=gpu` where the networks run.

    Args:
        context: config and manifest.
        method: what refines the masks.
        power: exponent of the scores before.
        compat_bilateral: weight of the dense CRF's term that follows colours.
    """
    max_side = context.config.images.max_side
    if method == "none" or context.config.refinement.device == "cpu":
        return (RefineMasks(method=method, power=power, compat_bilateral=compat_bilateral, max_side=max_side),)
    on_device = RefineOnDevice(method=method, power=power, compat_bilateral=compat_bilateral, max_side=max_side)
    return on_device, RefineMasks(method="given", max_side=max_side)


def encode_masks() -> EncodeMasks:
    """PNGs at the original size."""
    return EncodeMasks()


def gate_masks(context: Context, classifier: Artifact, *, keep_better: bool) -> GateMasks:
    """Judges masks before and after their refinement."""
    config = context.config
    return GateMasks(
        classifier=classifier,
        classes=context.classes,
        keep_better=keep_better,
        max_side=config.images.max_side,
        precision=config.precision,
    )
