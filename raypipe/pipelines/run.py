"""Everything in order: classifier → seeds → affinity → masks → evaluation → report.

What is finished is found by its digest and not computed again, so each step also stands alone: it makes what it needs.
"""

import logging
from dataclasses import dataclass
from functools import cached_property

from raypipe import storage
from raypipe.config import RunConfig, to_yaml
from raypipe.data.checkpoints import Task
from raypipe.pipelines import graph
from raypipe.pipelines.calibrate import ConfidenceMap, rows_with_truth, run_calibrated, run_calibration
from raypipe.pipelines.context import Context, open_context, start_ray
from raypipe.pipelines.evaluate import Score, has_truth, run_evaluate
from raypipe.pipelines.gate import Gated, run_gates
from raypipe.pipelines.masks import MaskInputs, masks_steps, run_masks
from raypipe.pipelines.report import write_report
from raypipe.pipelines.saliency import run_saliency, saliency_steps
from raypipe.pipelines.seeds import run_seeds, seeds_steps, seeds_stream
from raypipe.pipelines.sweep import SweepResult, run_sweep
from raypipe.pipelines.train import given_checkpoint, train_affinity, train_classifier

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """Something that a step made: where it is, and a digest that changes with its content."""

    uri: str
    digest: str


class Run:
    """The steps of one config. Each property makes its artifact, and those that it needs, unless they are there."""

    def __init__(self, config: RunConfig, *, write_config: bool = True) -> None:
        self.context: Context = open_context(config)
        self.config = config = self.context.config
        start_ray(config.cluster)
        if write_config:
            storage.write_bytes_atomic(storage.join(config.out, "config.yaml"), to_yaml(config).encode())

    @cached_property
    def classifier(self) -> Artifact:
        """The trained classifier."""
        given = given_checkpoint(self.context, task="classifier")
        return self._log("classifier", Artifact(*(given or train_classifier(self.context))))

    @cached_property
    def saliency(self) -> str:
        """URI of the folder of predicted saliency maps."""
        folder, summary = run_saliency(self.context)
        logger.info("saliency: %s", summary)
        return folder

    @cached_property
    def seeds(self) -> Artifact:
        """Class activation maps and trimaps."""
        folder, summary = run_seeds(
            self.context, classifier=self.classifier.uri, classifier_digest=self.classifier.digest
        )
        logger.info("seeds: %s", summary)
        return self._log("seeds", Artifact(folder, folder.rsplit("/", 1)[-1]))

    @cached_property
    def affinity(self) -> Artifact | None:
        """The trained AffinityNet; None where the walk goes along plain colours."""
        if self.config.walk.affinity == "rgb":
            return None
        if given := given_checkpoint(self.context, task="affinity"):
            return self._log("affinity", Artifact(*given))
        seeds = self.seeds
        trained = train_affinity(
            self.context, seeds=seeds.uri, seeds_digest=seeds.digest, classifier=self.classifier.uri
        )
        return self._log("affinity", Artifact(*trained))

    @cached_property
    def gated(self) -> Gated:
        """The refinements that are kept, and why."""
        gated = run_gates(self.context, **self._mask_inputs())
        for decision in gated.decisions:
            logger.info("gate: %s", decision)
        return gated

    @cached_property
    def masks(self) -> Artifact:
        """Pseudo-masks; maps that seeds hold already aren't computed again."""
        folder, summary = run_masks(self.gated.context, **self._mask_inputs())
        logger.info("masks: %s", summary)
        return self._log("masks", Artifact(folder, folder.rsplit("/", 1)[-1]))

    @cached_property
    def sweep(self) -> SweepResult:
        """Scores of many settings of the walk, and the chosen one."""
        result = run_sweep(self.context, self._mask_inputs())
        self._log("sweep", Artifact(result.folder, result.folder.rsplit("/", 1)[-1]))
        return result

    @cached_property
    def confidence_map(self) -> ConfidenceMap:
        """What the masks' confidence is worth, by the true masks of a few images."""
        rows_with_truth(self.context)  # without any, says so before hours of masks
        masks = self.masks
        folder, fitted = run_calibration(self.context, masks=masks.uri, masks_digest=masks.digest)
        self._log("calibrate", Artifact(folder, folder.rsplit("/", 1)[-1]))
        return fitted

    @cached_property
    def calibrated(self) -> Artifact:
        """The masks with the probability of being right as confidence; no label where the risk is too high."""
        confidence_map, masks = self.confidence_map, self.masks
        folder, summary = run_calibrated(
            self.context, masks=masks.uri, masks_digest=masks.digest, confidence_map=confidence_map
        )
        logger.info("calibrated: %s", summary)
        return self._log("calibrated", Artifact(folder, folder.rsplit("/", 1)[-1]))

    @cached_property
    def report(self) -> str:
        """URI of the HTML report; without scores where there are no true masks."""
        masks, scores = self.masks.uri, self.scores if has_truth(self.context) else []
        seeds = seeds_stream(self.context, classifier_digest=self.classifier.digest).folder
        networks: dict[Task, str] = {"classifier": self.classifier.uri}
        if self.affinity is not None:
            networks["affinity"] = self.affinity.uri
        return write_report(
            self.context, seeds=seeds, masks=masks, networks=networks, scores=scores, decisions=self.gated.decisions
        )

    @cached_property
    def scores(self) -> list[Score]:
        """Scores on every split with true masks."""
        masks = self.masks.uri
        seeds = seeds_stream(self.context, classifier_digest=self.classifier.digest).folder
        folder, scores = run_evaluate(self.gated.context, seeds=seeds, masks=masks)
        self._log("evaluate", Artifact(folder, folder.rsplit("/", 1)[-1]))
        return scores

    def _mask_inputs(self) -> MaskInputs:
        affinity = self.affinity
        return {
            "classifier": self.classifier.uri,
            "classifier_digest": self.classifier.digest,
            "affinity": affinity.uri if affinity else None,
            "affinity_digest": affinity.digest if affinity else None,
            "seeds": seeds_stream(self.context, classifier_digest=self.classifier.digest).folder,
        }

    def _log(self, step: str, artifact: Artifact) -> Artifact:
        logger.info("%s: %s (digest %s)", step, artifact.uri, artifact.digest)
        return artifact


def describe(context: Context) -> str:
    """The plan of the streams; computes nothing, starts nothing."""
    seeds = graph.describe(seeds_steps(context, classifier="CLASSIFIER"))
    affinity = None if context.config.walk.affinity == "rgb" else "AFFINITY"
    masks = graph.describe(masks_steps(context, classifier="CLASSIFIER", affinity=affinity, reuse_cams=False))
    saliency = ""
    if context.config.classifier.saliency != "none" and context.config.saliency.source != "given":
        saliency = f"saliency\n{graph.describe(saliency_steps(context))}\n\n"
    return f"{saliency}seeds\n{seeds}\n\nmasks\n{masks}"


def scores_table(scores: list[Score]) -> str:
    """The results as text."""
    rows = [("split", "images", "stage", "mIoU", "post-processing")]
    rows += [
        (score.split, str(score.num_images), score.stage, f"{100 * score.mean_iou:.1f}", score.post_processing)
        for score in scores
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
