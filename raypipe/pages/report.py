"""Writes what a run looks like as one HTML page. Nothing here grows with the rows but the time to read their ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.checkpoints import Task
from raypipe.pages.class_counts import count_masks
from raypipe.pages.counts import count_labels, count_quarantined, count_walks, final_confusions
from raypipe.pages.curves import collect_risks, collect_sweeps
from raypipe.pages.headline import headline
from raypipe.pages.provenance import provenance
from raypipe.pages.saliency_samples import saliency_samples
from raypipe.pages.samples import collect_samples
from raypipe.pages.times import stream_summaries
from raypipe.pipelines.context import Context
from raypipe.pipelines.labels.knowledge import label_sayings, read_label_precision
from raypipe.reports.html import Report, render_report
from raypipe.results import Decision, Score
from raypipe.training.trainer import read_metrics
from raypipe.uri import parent

REPORT_FILE = "report.html"


def write_report(
    context: Context,
    *,
    maps: Artifact,
    seeds: Artifact,
    masks: Artifact,
    segments: Artifact | None,
    networks: Mapping[Task, Artifact],
    evaluation: Artifact | None,
    scores: Sequence[Score],
    decisions: Sequence[Decision],
    num_samples: int,
    resources: str,
) -> str:
    """Writes the HTML report of a run; its URI.

    Args:
        context: config and manifest.
        maps: the checkpoint that makes the maps, or what given seeds are known by.
        seeds: folder of seeds; where it is missing, since the masks' stream computed the maps, a stream of their own
            makes the samples' maps.
        masks: folder of masks.
        segments: folder of the segmentation network's masks, if there are any.
        networks: task to checkpoint.
        evaluation: folder of the scores; None where there are no true masks.
        scores: none where there are no true masks.
        decisions: of the gates.
        num_samples: images of each kind that are shown.
        resources: what the cluster has, as text.
    """
    config = context.config
    outputs = {"seeds": seeds, "masks": masks} | ({} if segments is None else {"segments": segments})
    folders = {name: artifact.uri for name, artifact in outputs.items()}
    affinity, classifier = networks.get("affinity"), networks.get("classifier")
    curves: dict[str, Sequence[Mapping[str, Any]]] = {
        name: read_metrics(parent(network.uri)) for name, network in networks.items()
    }
    known = None if classifier is None else read_label_precision(classifier)
    num_labelled, label_pairs = count_labels(
        (part.read()["labels"] for part in context.manifest.parts), context.classes
    )
    title, about = headline(context, "Masks", decisions=decisions)
    report = Report(
        title=title,
        about=about,
        classes=context.classes,
        scores=scores,
        gate=config.refinement.gate,
        decisions=decisions,
        walks=count_walks(masks.uri, config.walk),
        curves=curves,
        known=known,
        sayings=[] if known is None else label_sayings(config, known, epochs=curves["classifier"]),
        samples=collect_samples(
            context,
            outputs,
            maps=maps,
            affinity=affinity,
            evaluation=evaluation,
            scores=scores,
            num_samples=num_samples,
        ),
        confusions=final_confusions(evaluation, list(scores)),
        counts=count_masks(context.rows(None), masks, classes=context.classes, num_labelled=num_labelled),
        label_pairs=label_pairs,
        risks=collect_risks(config.out, masks=masks, evaluation=evaluation, scores=scores),
        sweeps=collect_sweeps(config.out, maps=maps, affinity=affinity),
        saliency=saliency_samples(context, classifier=classifier, num_samples=num_samples) if classifier else (),
        streams=stream_summaries(context, outputs, maps=maps, affinity=affinity, classifier=classifier),
        quarantine=count_quarantined(folders),
        provenance=provenance(context, outputs=outputs, networks=networks, resources=resources),
    )
    uri = storage.join(config.out, REPORT_FILE)
    storage.write_bytes_atomic(uri, render_report(report).encode())
    return uri
