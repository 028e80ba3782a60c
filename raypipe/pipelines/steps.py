"""The method's stages with their settings from the config, each made in one place."""

from raypipe.artifacts import Artifact
from raypipe.config import RunConfig
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
from raypipe.stages.trimaps import MakeTrimaps

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


def make_trimaps(context: Context) -> MakeTrimaps:
    """Confident areas (§3.2)."""
    config = context.config
    return MakeTrimaps(
        splits=config.splits.train,
        trimaps=config.trimaps,
        max_side=config.images.max_side,
    )


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


def refine_masks(context: Context) -> RefineMasks:
    """From walked scores to masks."""
    refinement, max_side = context.config.refinement, context.config.images.max_side
    if refinement.method == "none":
        return RefineMasks(method="none", max_side=max_side)
    if refinement.method == "pamr":
        return RefineMasks(method="pamr", power=refinement.power, max_side=max_side)
    compat = refinement.compat_bilateral
    return RefineMasks(method="dcrf", power=refinement.power, compat_bilateral=compat, max_side=max_side)


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
