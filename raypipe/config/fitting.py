"""Options that suit a dataset, by a rule from what is known of it before any training; each with its reason.

Presets count epochs in passes over the set that they were made for. A set of 100 images would have a fourteenth of
those steps. So epochs follow from a number of steps; the other rules keep crops and sampling in proportion.

Source: the idea of a data fingerprint is that of Isensee et al., "nnU-Net", Nature Methods 2021. Where the numbers come
from stands beside each of them.
"""

import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.config.root import RunConfig
from raypipe.config.training import TrainingSection

STEPS = 360
"""Of a training at least, of 16 images each: on VOC maps of 180 steps had 28.4 mIoU, of 360 38.8, of 540 39.0 (n = 104,
benchmarks/voc12.md)."""
MOST_EPOCHS = 100
"""More passes than these over the same images teach them by heart."""
FEW = 500
"""Images below which the maps are refitted and no AffinityNet is trained: on three classes of VOC, 100 images, the walk
along learned affinities was worse than no walk, along frozen ones better (benchmarks/small_sets.md). Of 1,446 images an
AffinityNet learns enough; nothing in between was measured."""
RARE = 0.5
"""Share of an even distribution below which a class is rare: its images come more often."""
WIDEST = 1.5
"""Largest long side of a training image, relative to the usual one: maps are computed up to about that scale."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What is known of a dataset before any training."""

    num_images: int
    """With usable labels, that are learned from: those of `splits.train`, if the manifest has it."""
    class_images: dict[str, int]
    """Images that show each class."""
    long_side: int | None
    """Median long side of a sample of images, in pixels, no more than `images.max_side`; None where none was read."""
    splits: frozenset[str]
    """Of the manifest."""

    @property
    def labels_an_image(self) -> float:
        """On average."""
        return sum(self.class_images.values()) / max(1, self.num_images)


@dataclass(frozen=True)
class Fitted:
    """An option, its value and why."""

    name: str
    value: Any
    reason: str


def fit(config: RunConfig, found: Fingerprint, *, given: Collection[str] = ()) -> Iterator[Fitted]:
    """The options that should be other than a config has them.

    Args:
        config: to start from, such as a preset's.
        found: of the dataset.
        given: dotted names of options that are settled: no rule replaces them, and what others make of them follows.
    """
    yield from (each for each in _all_rules(config, found, given) if each.name not in given)


def _all_rules(config: RunConfig, found: Fingerprint, given: Collection[str]) -> Iterator[Fitted]:
    few = list(_few(config, found, given))
    frozen = any(each.name == "walk.affinity" for each in few)
    yield from _splits(config, found)
    for name in ("classifier",) if frozen else ("classifier", "affinity"):
        yield from _epochs(config, found, name)
    yield from few
    yield from _sampling(config, found)
    yield from _sizes(config, found)


def commented_yaml(entries: Sequence[Fitted], *, heading: Sequence[str]) -> str:
    """YAML of options, each behind its reason.

    Args:
        entries: options by their dotted names, of which none is in another; without a reason they need none.
        heading: lines of comment before them.
    """
    tree: dict[str, Any] = {}
    for each in entries:
        *path, option = each.name.split(".")
        section = tree
        for name in path:
            section = section.setdefault(name, {})
        section[option] = each
    return "\n".join([*(f"# {line}" for line in heading), *_lines(tree, "")]) + "\n"


def _lines(tree: dict[str, Any], indent: str) -> Iterator[str]:
    for name, found in tree.items():
        if not isinstance(found, Fitted):
            yield f"{indent}{name}:"
            yield from _lines(found, indent + "  ")
            continue
        if found.reason:
            yield f"{indent}# {found.reason}"
        yield f"{indent}{name}: {json.dumps(found.value, ensure_ascii=False)}"


def notes(config: RunConfig, found: Fingerprint) -> Iterator[str]:
    """What these rules don't mend."""
    if config.network.weights is None and config.network.backbone != "tiny":  # whose weights nobody has
        yield (
            "network.weights is null: the networks start from random numbers, which takes far more images and steps; "
            "name pretrained ones (docs/backbones.md)"
        )
    everywhere = [name for name, number in found.class_images.items() if number >= found.num_images]
    if everywhere:
        yield (
            f"all images show {', '.join(everywhere[:5])}: nothing tells them from the background; add images without "
            "them, with an empty list of labels if they show no class at all"
        )
    if few := [f"{name} {number}" for name, number in found.class_images.items() if number < 20]:
        yield f"fewer than 20 images show {', '.join(few[:5])}: their maps will be rough"


def training_steps(config: RunConfig, found: Fingerprint) -> str:
    """How many steps the trainings of a config take on a dataset, in a line."""
    steps = {}
    trained = {"affinity": config.walk.affinity == "learned", "segmenter": config.segmenter.enabled}
    for name in ("classifier", *(name for name, wanted in trained.items() if wanted)):
        section = getattr(config, name)
        steps[name] = section.epochs * _steps_an_epoch(section, found)
    each = ", ".join(f"{name} {number:,}" for name, number in steps.items())
    return f"steps of training: {sum(steps.values()):,} ({each}); `raypipe doctor CONFIG` forecasts how long they take"


def _splits(config: RunConfig, found: Fingerprint) -> Iterator[Fitted]:
    for name in ("splits.train", "splits.masks", "evaluation.splits", "segmentation.splits"):
        section, option = name.split(".")
        named = getattr(getattr(config, section), option)
        if named and not set(named) <= found.splits:
            yield Fitted(name, None, f"the manifest has no {', '.join(sorted(set(named) - found.splits))}: all images")


def _steps_an_epoch(section: TrainingSection, found: Fingerprint) -> int:
    return math.ceil(min(found.num_images, section.max_images or found.num_images) / section.batch_size)


def _epochs(config: RunConfig, found: Fingerprint, name: str) -> Iterator[Fitted]:
    section = getattr(config, name)
    steps = _steps_an_epoch(section, found)
    # A batch of half the size needs twice as many steps to have seen as much.
    wanted = STEPS * 16 // section.batch_size
    epochs = min(MOST_EPOCHS, -(-wanted // max(1, steps)))
    if epochs > section.epochs:
        reason = f"{steps} steps of {section.batch_size} an epoch, of which a training wants {wanted}"
        yield Fitted(f"{name}.epochs", epochs, reason + (f"; {MOST_EPOCHS} at most" if epochs == MOST_EPOCHS else ""))


def _few(config: RunConfig, found: Fingerprint, given: Collection[str]) -> Iterator[Fitted]:
    suits = config.network.weights is not None and config.images.tile is None and config.walk.affinity == "learned"
    if found.num_images >= FEW or not suits:
        return
    refits = config.checkpoints.seeds is None and (config.cams.refit or "cams.refit" not in given)
    if refits:
        reason = "maps of few images cover an object's surroundings, too: a layer learns what is background"
        yield Fitted(name="cams.refit", value=True, reason=reason)
    if config.checkpoints.affinity is None and "walk.affinity" not in given:
        yield Fitted("walk.affinity", "frozen", f"an AffinityNet wants more images, {FEW} or so")
    if refits:
        yield Fitted("walk.alpha", 1.0, "refitted maps know the background: its exponent needs to make up for nothing")


def _sampling(config: RunConfig, found: Fingerprint) -> Iterator[Fitted]:
    shown = {name: number for name, number in found.class_images.items() if number}
    if len(shown) < 2:
        return
    threshold = round(RARE / len(shown), 3)
    name, number = min(shown.items(), key=lambda item: item[1])
    if number / found.num_images < threshold and (config.repeat_threshold or 0) < threshold:
        reason = f"{name} is on {number} of {found.num_images} images: those of rare classes come more often"
        yield Fitted("repeat_threshold", threshold, reason)


def _sizes(config: RunConfig, found: Fingerprint) -> Iterator[Fitted]:
    if found.long_side is None:
        return
    crop = max(32, min(config.classifier.crop_size, -(-found.long_side // 8) * 8))
    if crop < config.classifier.crop_size:
        reason = f"the images' median long side is {found.long_side} pixels"
        for name in ("classifier", "affinity"):
            yield Fitted(f"{name}.crop_size", crop, reason)
        yield Fitted("classifier.long_side", [crop, round(WIDEST * crop)], "from the crop's size to the maps' largest")
