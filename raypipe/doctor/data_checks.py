"""Checks of what a run reads and writes: manifest, networks, output, images. Each goes from facts to a finding."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pyarrow.compute as pc

from raypipe import storage
from raypipe import uri as uris
from raypipe.cluster.findings import Finding, from_places, judge, problem
from raypipe.cluster.survey import View
from raypipe.data.checkpoints import METADATA_FILE, WEIGHTS_FILE, Task
from raypipe.data.rows import Part, Rows
from raypipe.doctor.forecast import Sample
from raypipe.doctor.workload import trains_classifier
from raypipe.faults import blame
from raypipe.networks.backbones import default_preprocessing
from raypipe.networks.registry import TORCHVISION_SCHEME, cached_file
from raypipe.networks.timm_registry import HUB_SCHEME, TIMM_SCHEME, is_cached
from raypipe.outputs.imported import SEEDS_FILE
from raypipe.pipelines.context import Context
from raypipe.pipelines.needs import uses_classifier
from raypipe.pipelines.networks import given_checkpoint
from raypipe.streams.budget import allowed_rows
from raypipe.streams.tasks import in_tasks
from raypipe.training.staging import find_weights, is_published
from raypipe.words import counted


def check_manifest(context: Context) -> Finding:
    """Rows, splits and labels."""
    config = context.config
    everything = context.rows(None, columns=("split", "labels"))
    splits: Counter[str] = sum(in_tasks(partial(_count_splits, everything), everything.parts, inline=True), Counter())
    counts = ", ".join(f"{name} {number}" for name, number in sorted(splits.items()))
    found = f"{counted(splits.total(), 'rows')} ({counts}), {counted(len(context.classes), 'classes')}"
    try:
        rows = context.seed_rows()
        context.rows(config.splits.masks)
    except ValueError as error:
        needed, way_out = "splits that the manifest has", "set splits.train and splits.masks"
        return problem("manifest", str(error), needed=needed, way_out=way_out)
    looks = list(in_tasks(partial(_look_at_labels, rows, context.classes), rows.parts, inline=True))
    unknown = sorted(set().union(*(look.unknown for look in looks)))
    if unknown:
        found += f"; unknown labels: {', '.join(unknown[:5])}"
    num_rows, unlabelled = sum(look.num_rows for look in looks), sum(look.unlabelled for look in looks)
    misnamed = sum(look.misnamed for look in looks)
    bad, allowed = unlabelled + misnamed, allowed_rows(config.budget, num_rows)
    too_many = bad > allowed or bad == num_rows
    if unlabelled and not misnamed and not too_many:
        without = f"{counted(unlabelled, 'images have no label')}, and no mask is made of such images; nothing to do"
        return Finding("manifest", "ok", f"{found}; {without}")
    splits_out = ", leave their split out" if context.manifest.splits else ""
    return judge(
        "manifest",
        f"{found}; {counted(unlabelled, 'rows')} without labels; {counted(bad, 'rows')} would be quarantined"
        if bad
        else found,
        status="ok" if not bad else "problem" if too_many else "warning",
        needed=f"at most {counted(allowed, 'such rows')}, by the budget",
        way_out="give these rows labels of the manifest's classes"
        + (
            f"{splits_out}, or raise budget.max_rows"
            if too_many
            else ", or leave them: a run puts them into quarantine"
        ),
    )


class _Look(NamedTuple):
    """What the labels of a part are like."""

    num_rows: int
    unlabelled: int
    misnamed: int
    """Rows with a label that is no class."""
    unknown: frozenset[str]
    """Such labels."""


def _look_at_labels(rows: Rows, classes: Sequence[str], part: Part) -> _Look:
    labels = rows.read(part)["labels"]
    unknown = frozenset(pc.unique(pc.list_flatten(labels)).to_pylist()) - {*classes, None}
    misnamed = sum(not set(names or []) <= set(classes) for names in labels.to_pylist()) if unknown else 0
    return _Look(len(labels), labels.null_count, misnamed, unknown)


def _count_splits(rows: Rows, part: Part) -> Counter[str]:
    return Counter(split or "no split" for split in rows.read(part)["split"].to_pylist())


def network_files(context: Context) -> list[str]:
    """Files of networks, and of maps in the place of one, that machines of the cluster will open."""
    files = []
    for _, given, _weights in _networks(context):
        if given is not None:
            files += [storage.join(given, METADATA_FILE), storage.join(given, WEIGHTS_FILE)]
    files += [weights for weights in _initial_weights(context) if not is_published(weights)]
    config = context.config
    if config.checkpoints.seeds is not None:
        files.append(storage.join(config.checkpoints.seeds, SEEDS_FILE))
    return list(dict.fromkeys(files))


def _networks(context: Context) -> Iterator[tuple[Task, str | None, str | None]]:
    """Task, given checkpoint and initial weights of the networks that a run needs.

    A network that starts from the classifier has no weights of its own.
    """
    config = context.config
    given, weights = config.checkpoints, config.network.weights
    if uses_classifier(context):
        yield "classifier", given.classifier, weights
    if config.walk.affinity != "rgb":
        yield "affinity", given.affinity, weights if config.affinity.start == "pretrained" else None
    if config.segmenter.enabled:
        yield "segmenter", given.segmenter, weights if config.segmenter.start == "pretrained" else None


def _initial_weights(context: Context) -> Iterator[str]:
    """Weights that trainings start from, and those of the network that predicts saliency."""
    config = context.config
    yield from (weights for _, given, weights in _networks(context) if weights and given is None)
    if config.classifier.saliency != "none" and trains_classifier(context) and config.saliency.weights:
        yield config.saliency.weights


def check_networks(context: Context, places: Mapping[str, View], *, local_weights: bool = True) -> Finding:
    """Checkpoints and weights are there and fit the classes.

    Args:
        context: config and manifest.
        places: what machines of the cluster see; with none, this process looks for files alone, as a run does before
            its start: then storage that can't be asked is an error, and no finding.
        local_weights: weights at local paths are looked for, too, which workers on other machines may have alone.
    """
    plan, problems, downloads = [], [], []

    def note(error: Exception) -> None:
        if not places and is_outage(error):
            raise error
        problems.append(f"{type(error).__name__}: {error}")

    for task, given, weights in _networks(context):
        from_classifier = task != "classifier" and getattr(context.config, task).start == "classifier"
        start = "the classifier" if from_classifier else weights or "random numbers"
        frozen = task == "affinity" and context.config.walk.affinity == "frozen"
        plan.append(f"{task}: " + (given or f"{'frozen, as in' if frozen else 'trained from'} {start}"))
        try:
            if given is not None:
                given_checkpoint(context, task=task)
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own
            note(error)
    try:
        default_preprocessing(context.config.network.backbone)
    except ValueError as error:  # timm has no such network
        problems.append(str(error))
    for weights in _initial_weights(context):
        if uris.is_local(weights) and not local_weights:
            continue
        try:
            found = find_weights(weights, out=context.config.out)
            if found is not None and storage.exists(found):
                continue
            if not is_published(weights):
                problems += [] if places else [f"{weights}: there is no such file"]
            elif weights.startswith(TORCHVISION_SCHEME):
                if not cached_file(weights).exists():
                    downloads.append(f"{weights} isn't in torch's cache here ({cached_file(weights)})")
            elif weights.startswith((TIMM_SCHEME, HUB_SCHEME)) and not is_cached(weights):
                downloads.append(f"{weights} isn't in the Hugging Face hub's cache here")
        except Exception as error:  # noqa: BLE001 - as above
            note(error)
    absent = {place: ", ".join(map(" - ".join, view.absent.items())) for place, view in places.items() if view.absent}
    if absent:
        problems.append(f"not found {from_places(absent)}")
    if problems:
        return problem(
            "networks",
            "; ".join(dict.fromkeys(problems)),
            needed="weights and checkpoints that every machine can read, of the manifest's classes",
            way_out="mend checkpoints.*, network.backbone or network.weights; null trains, or starts from random; "
            "`raypipe import seeds` writes a folder for checkpoints.seeds",
        )
    return judge(
        "networks",
        "; ".join(dict.fromkeys(downloads) if downloads else plan),
        status="warning" if downloads else "ok",
        needed="the file there, or a way to download it, on the driver's machine",
        way_out="nothing where it reaches download.pytorch.org; else bring the file, or give a URI of your own",
    )


def check_images(places: Mapping[str, View], *, num_sampled: int, allowed_share: float) -> Finding:
    """Images of the sample can be read from everywhere."""
    unread = {place: view.unread for place, view in places.items() if view.unread}
    if not unread:
        return Finding("images", "ok", f"a sample of {num_sampled} is read from every machine")
    everywhere = len({frozenset(view.unread) for view in places.values()}) == 1
    number = max(map(len, unread.values()))
    texts = {
        place: f"{len(failed)} of {num_sampled}, such as {min(failed)} ({failed[min(failed)]})"
        for place, failed in unread.items()
    }
    return Finding(
        "images",
        "warning" if everywhere and number <= allowed_share * num_sampled else "problem",
        f"can't be read {from_places(texts)}",
        needed=f"images that every node can read; {what_may_fail(allowed_share)}",
        way_out="mend the manifest's image_uri" if everywhere else "the same credentials and mounts on every node",
    )


def check_sample(sample: Sample, *, allowed_share: float) -> Finding:
    """Rows of the sample went through all stages."""
    number = len(sample.quarantined)
    if not number:
        return Finding("sample", "ok", f"a sample of {counted(sample.num_images, 'images')} went through all stages")
    first = "; ".join(f"{name}: {reason}" for name, reason in list(sample.quarantined.items())[:3])
    too_many = number > allowed_share * sample.num_images
    return Finding(
        "sample",
        "problem" if too_many else "warning",
        f"{number} of {sample.num_images} images can't be used and would get no mask: {first}",
        needed=f"images that can be used; {what_may_fail(allowed_share)}",
        way_out="mend such images, or raise budget.max_rows"
        if too_many
        else "mend such images, or leave them as they are: a run puts them into quarantine",
    )


def is_outage(error: Exception) -> bool:
    """Whether storage, or this machine's way to it, has failed, and nothing is known of what was asked for."""
    return blame(error) in ("storage", "node")


def what_may_fail(share: float) -> str:
    """What the budget means, as a part of what is needed.

    Args:
        share: of the rows that may fail.
    """
    return f"a run goes on while at most {100 * share:.3g} % of all images fail (budget.max_rows, budget.max_fraction)"


def allowed_share(context: Context) -> float:
    """Share of the rows that may fail."""
    rows = context.seed_rows().most
    return min(1.0, allowed_rows(context.config.budget, rows) / max(1, rows))
