"""A run: classifier → seeds → affinity → masks (→ segmenter → segments) → evaluation → report.

What is finished is found by its digest and not computed again, so each step also stands alone: it makes what it needs.
"""

import logging
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import RunConfig, to_yaml
from raypipe.data.checkpoints import Task
from raypipe.pipelines.affinity import freeze_backbone, train_affinity
from raypipe.pipelines.classifier import train_classifier
from raypipe.pipelines.context import CONFIG_FILE, Context, Retrain, open_context
from raypipe.pipelines.evaluate import has_truth, run_evaluate
from raypipe.pipelines.gate import Gated, run_gates
from raypipe.pipelines.masks import run_masks
from raypipe.pipelines.masks_file import write_masks_file
from raypipe.pipelines.needs import uses_classifier
from raypipe.pipelines.networks import given_checkpoint
from raypipe.pipelines.refit import refit_classifier, refits
from raypipe.pipelines.saliency_maps import run_saliency
from raypipe.pipelines.seeds import given_seeds, run_seeds, seeds_plan
from raypipe.pipelines.segmenter import has_weak_rows, run_segment, train_segmenter
from raypipe.pipelines.self_training import self_train
from raypipe.results import Decision, Score, StreamSummary

if TYPE_CHECKING:
    from raypipe.pipelines.calibrate import ConfidenceMap
    from raypipe.pipelines.walk.sweep import SweepResult

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def once(step: Callable[["Run"], Result]) -> Callable[["Run"], Result]:
    """Makes a step of a run remember its result: steps that need it ask again. Storage that is away is waited for."""

    def remembered(run: "Run") -> Result:
        if step.__name__ not in run.results:
            with storage.patience():
                run.results[step.__name__] = step(run)
        result: Result = run.results[step.__name__]
        return result

    return update_wrapper(remembered, step)


class Run:
    """The steps of one config. Each makes what it is named after, and what it needs, unless that is there already.

    Ray has to be connected before the first step: see `streams.connect`.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.config
        self.results: dict[str, Any] = {}
        """Of the steps that were taken, by name."""

    @once
    def train_classifier(self) -> Artifact:
        """The trained classifier."""
        given = given_checkpoint(self.context, task="classifier")
        return _log("classifier", given or train_classifier(self.context))

    @once
    def find_maps(self) -> Artifact:
        """What makes the class activation maps: given seeds, or the classifier, refitted where the config asks."""
        if given := given_seeds(self.context):
            return _log("maps", given)
        classifier = self.train_classifier()
        return _log("refit", refit_classifier(self.context, classifier)) if refits(self.context) else classifier

    @once
    def find_judge(self) -> Artifact | None:
        """The classifier that judges what refines masks; None where the seeds are given and the run has none."""
        return self.train_classifier() if uses_classifier(self.context) else None

    @once
    def predict_saliency(self) -> Artifact:
        """Saliency maps of the training images that have none."""
        return _finished("saliency", run_saliency(self.context))

    @once
    def make_seeds(self) -> Artifact:
        """Class activation maps and trimaps."""
        return _finished("seeds", run_seeds(self.context, maps=self.find_maps()))

    @once
    def train_affinity(self) -> Artifact | None:
        """The trained AffinityNet, or the backbone in its place; None where the walk goes along plain colours."""
        if self.config.walk.affinity == "rgb":
            return None
        if given := given_checkpoint(self.context, task="affinity"):
            return _log("affinity", given)
        classifier = self.train_classifier() if self.config.affinity.start == "classifier" else None
        if self.config.walk.affinity == "frozen":
            return _log("affinity", freeze_backbone(self.context, classifier=classifier))
        seeds = self.make_seeds()
        return _log("affinity", train_affinity(self.context, seeds=seeds, classifier=classifier))

    @once
    def decide_gates(self) -> Gated:
        """The refinements that are kept, and why."""
        affinity, judge = self.train_affinity(), self.find_judge()
        return run_gates(self.context, maps=self.find_maps(), affinity=affinity, judge=judge)

    @once
    def make_masks(self) -> Artifact:
        """Pseudo-masks."""
        gated = self.decide_gates()
        affinity, judge = self.train_affinity(), self.find_judge()
        made = run_masks(gated.context, maps=self.find_maps(), affinity=affinity, judge=judge)
        if made[1].num_computed:
            write_masks_file(self.config.out, made[0], classes=self.context.classes)
        return _finished("masks", made)

    @once
    def train_segmenter(self) -> tuple[Artifact, list[Decision]]:
        """The trained segmentation network, and what was decided on each round of self-training."""
        if given := given_checkpoint(self.context, task="segmenter"):
            return _log("segmenter", given), []
        masks = self.make_masks() if has_weak_rows(self.context) else None
        classifier = self.train_classifier() if self.config.segmenter.start == "classifier" else None
        trained = train_segmenter(self.context, masks=masks, classifier=classifier)
        if masks is None or not self.config.segmenter.rounds:
            return _log("segmenter", trained), []
        judge = self.train_classifier()
        trained, decisions = self_train(self.context, segmenter=trained, masks=masks, classifier=judge)
        return _log("segmenter", trained), decisions

    @once
    def segment(self) -> Artifact:
        """Masks of the segmentation network, which needs no labels."""
        segmenter, _ = self.train_segmenter()
        return _finished("segments", run_segment(self.context, segmenter=segmenter))

    @once
    def sweep(self) -> "SweepResult":
        """Scores of many settings of the walk, and the chosen one."""
        from raypipe.pipelines.walk.sweep import run_sweep  # pandas and matplotlib take seconds

        result = run_sweep(self.context, maps=self.find_maps(), affinity=self.train_affinity())
        logger.info("sweep: %s", result.folder)
        return result

    @once
    def fit_confidence(self) -> "ConfidenceMap":
        """What the masks' confidence is worth, by the true masks of a few images."""
        from raypipe.pipelines.calibrate import rows_with_truth, run_calibration  # scipy takes seconds

        rows_with_truth(self.context)  # without any, says so before hours of masks
        folder, fitted = run_calibration(self.context, masks=self.make_masks())
        _log("calibrate", folder)
        return fitted

    @once
    def calibrate(self) -> Artifact:
        """The masks with the probability of being right as confidence; no label where the risk is too high."""
        from raypipe.pipelines.calibrate import run_calibrated

        confidence_map = self.fit_confidence()
        made = run_calibrated(self.context, masks=self.make_masks(), confidence_map=confidence_map)
        return _finished("calibrated", made)

    @once
    def evaluate(self) -> tuple[Artifact, list[Score]]:
        """The folder of the scores on every split with true masks, and the scores."""
        segments = self.segment() if self.config.segmenter.enabled else None
        gated = self.decide_gates()
        folder, scores = run_evaluate(gated.context, seeds=self._seeds(), masks=self.make_masks(), segments=segments)
        return _log("evaluate", folder), scores

    @storage.patience()
    def report(self, num_samples: int = 6) -> str:
        """URI of the HTML report, with its config beside it; without scores where there are no true masks."""
        from raypipe.pages.report import write_report  # matplotlib takes seconds

        masks = self.make_masks()
        evaluation, scores = self.evaluate() if has_truth(self.context) else (None, [])
        judge = self.find_judge()
        networks: dict[Task, Artifact] = {} if judge is None else {"classifier": judge}
        if (affinity := self.train_affinity()) is not None:
            networks["affinity"] = affinity
        segments: Artifact | None = None
        rounds: list[Decision] = []
        if self.config.segmenter.enabled:
            networks["segmenter"], rounds = self.train_segmenter()
            segments = self.segment()
        write_masks_file(self.config.out, masks, classes=self.context.classes)
        # Only here: a step that stands alone, with overrides, must not replace the config of the whole run.
        storage.write_bytes_atomic(storage.join(self.config.out, CONFIG_FILE), to_yaml(self.config).encode())
        return write_report(
            self.context,
            maps=self.find_maps(),
            seeds=self._seeds(),
            masks=masks,
            segments=segments,
            networks=networks,
            evaluation=evaluation,
            scores=scores,
            decisions=[*self.decide_gates().decisions, *rounds],
            num_samples=num_samples,
            resources=self.context.computed_on,
        )

    def _seeds(self) -> Artifact:
        """Where the seeds are, or would be where the maps were computed with the masks."""
        return seeds_plan(self.context, maps=self.find_maps()).artifact(self.config.out)


def open_run(config: RunConfig, *, retrain: Retrain = "none", seeds: str | None = None) -> Run:
    """The steps of a config; finds its manifest. Arguments as of `open_context`."""
    return Run(open_context(config, retrain=retrain, seeds=seeds))


def _log(step: str, artifact: Artifact) -> Artifact:
    logger.debug("%s: %s (digest %s)", step, artifact.uri, artifact.digest)
    return artifact


def _finished(step: str, made: tuple[Artifact, StreamSummary]) -> Artifact:
    artifact, summary = made
    logger.debug("%s: %s", step, summary)
    return _log(step, artifact)
