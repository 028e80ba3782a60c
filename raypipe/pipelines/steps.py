"""The method's stages with their settings from the config, each made in one place."""

from typing import Literal

from raypipe.artifacts import Artifact
from raypipe.config import RunConfig
from raypipe.ops.dense_crf import COMPAT_BILATERAL
from raypipe.ops.walk_choice import WalkChoice
from raypipe.outputs.imported import load_imported
from raypipe.outputs.load import Load
from raypipe.pipelines.context import Context
from raypipe.pipelines.labels.knowledge import class_skills
from raypipe.stages.base import Stage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.decode import DecodeImages
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.fetch import FetchImages
from raypipe.stages.given_seeds import FitSeeds, ProvideSeeds
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.over_tiles import (
    CamsOverTiles,
    RefineOverTiles,
    SegmentOverTiles,
    TrimapsOverTiles,
    WalkOverTiles,
)
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks
from raypipe.stages.refine_on_device import RefineOnDevice
from raypipe.stages.sample_cells import RefitSettings, SampleCells
from raypipe.stages.scenes import DecodeScenes, FetchScenes
from raypipe.stages.segment import SegmentImages
from raypipe.stages.trimaps import MakeTrimaps
from raypipe.stages.trimaps_on_device import MakeTrimapsOnDevice

PIXELS_PER_PASS = 8_000_000
"""Of one pass in throughput mode, mirror images not counted: what fits into an accelerator's memory."""


def pixels_per_pass(config: RunConfig) -> int | None:
    """Pixels that images may share a pass up to; None takes every image alone, whatever else there is."""
    return PIXELS_PER_PASS if config.inference.mode == "throughput" else None


def fetch_images(context: Context) -> FetchImages:
    """Image bytes and class ids."""
    return fetching(context.config, classes=context.classes)


def fetching(config: RunConfig, *, classes: tuple[str, ...] | None, labels_needed: bool = True) -> FetchImages:
    """Image bytes and class ids; arguments as of `FetchImages`."""
    if not config.images.by_windows:
        return FetchImages(classes=classes, labels_needed=labels_needed)
    return FetchScenes(classes=classes, labels_needed=labels_needed, images=config.images)


def decode_images(context: Context, *, max_side: int | None = None) -> DecodeImages:
    """Pixels and sizes; None reduces images as the config says."""
    images = context.config.images
    return (DecodeScenes if images.by_windows else DecodeImages)(max_side=max_side or images.max_side)


def compute_cams(context: Context, maps: Artifact) -> Stage:
    """Class activation maps (§3.1): of a classifier, or given ones.

    Args:
        context: config and manifest.
        maps: the classifier's checkpoint, or what given seeds are known by, which `given_loads` takes up.
    """
    config, provider = context.config, context.provider
    fit = FitSeeds(classes=context.classes, out_stride=config.cams.out_stride)
    if provider is not None:
        return ProvideSeeds(provider=provider.stage, name=provider.name, version=provider.version, fit=fit)
    if config.checkpoints.seeds is not None:
        return fit
    cams = ComputeCams(
        classifier=maps,
        cams=config.cams,
        max_side=config.images.max_side,
        precision=config.precision,
        pixels_per_pass=pixels_per_pass(config),
    )
    return cams if config.images.tile is None else CamsOverTiles(stage=cams, images=config.images)


def sample_cells(context: Context, classifier: Artifact, settings: RefitSettings) -> Stage:
    """Cells that the maps of a classifier are sure of."""
    config = context.config
    return SampleCells(
        classifier=classifier,
        max_side=config.images.max_side,
        precision=config.precision,
        settings=settings,
        pixels_per_pass=pixels_per_pass(config),
    )


def given_loads(context: Context, maps: Artifact) -> tuple[Load, ...]:
    """What a stream with `compute_cams` takes from imported seeds; arguments as there."""
    imported = context.provider is None and context.config.checkpoints.seeds is not None
    return (load_imported(maps),) if imported else ()


def make_trimaps(context: Context) -> Stage:
    """Confident areas (§3.2)."""
    config = context.config
    stage = MakeTrimaps if config.refinement.device == "cpu" else MakeTrimapsOnDevice
    trimaps = stage(
        splits=config.splits.train,
        trimaps=config.trimaps,
        cam_stride=config.cams.out_stride,
        max_side=config.images.max_side,
    )
    if config.images.tile is None:
        return trimaps
    return TrimapsOverTiles(stage=trimaps, images=config.images)


def propagate_cams(context: Context, affinity: Artifact | None, *, maps: Artifact) -> Stage:
    """The random walk (§3.4).

    Args:
        context: config and manifest.
        affinity: the AffinityNet's checkpoint; None walks along plain colours.
        maps: as of `compute_cams`.
    """
    return _walking(context, _walk(context, affinity, maps))


def walk_choice(config: RunConfig, affinity: Artifact | None) -> WalkChoice:
    """Which walks each image takes the one of that suits it; along colours nothing judges that."""
    if config.refinement.gate == "off" or affinity is None:
        return "given"
    return "longer" if config.walk.affinity == "frozen" else "any"


def _walking(context: Context, walk: PropagateCams | GateWalk) -> Stage:
    images = context.config.images
    return walk if images.tile is None else WalkOverTiles(stage=walk, images=images)


def _walk(context: Context, affinity: Artifact | None, maps: Artifact) -> PropagateCams:
    config = context.config
    return PropagateCams(
        affinity=affinity,
        alpha=config.walk.alpha,
        beta=config.walk.beta,
        num_steps=config.walk.num_steps,
        radius=config.radius,
        count_padding=config.walk.count_padding,
        skills=class_skills(maps),
        cam_stride=config.cams.out_stride,
        max_side=config.images.max_side,
        precision=config.precision,
        pixels_per_pass=pixels_per_pass(config),
    )


def gate_walk(context: Context, affinity: Artifact | None, *, maps: Artifact) -> Stage:
    """The random walk, judged, and the one that suits each image; arguments as of `propagate_cams`."""
    walk, choice = _walk(context, affinity, maps), walk_choice(context.config, affinity)
    return _walking(context, GateWalk(walk=walk, choice=choice, pixels_per_pass=walk.pixels_per_pass))


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
    images = context.config.images
    stages: tuple[RefineMasks | RefineOnDevice, ...]
    if method == "none" or context.config.refinement.device == "cpu":
        stages = (RefineMasks(method=method, power=power, compat_bilateral=compat_bilateral, max_side=images.max_side),)
    else:
        side = images.max_side
        on_device = RefineOnDevice(method=method, power=power, compat_bilateral=compat_bilateral, max_side=side)
        stages = on_device, RefineMasks(method="given", max_side=side)
    return stages if images.tile is None else tuple(RefineOverTiles(stage=each, images=images) for each in stages)


def segment_images(context: Context, segmenter: Artifact, *, within_labels: bool) -> Stage:
    """The segmentation network (§3.5); arguments as of `segment_plan`."""
    config = context.config
    segment = SegmentImages(
        segmenter=segmenter,
        scales=config.segmentation.scales,
        max_side=config.images.max_side,
        precision=config.precision,
        within_labels=within_labels,
        pixels_per_pass=pixels_per_pass(config),
    )
    return segment if config.images.tile is None else SegmentOverTiles(stage=segment, images=config.images)


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
