"""Everything in order: classifier → seeds → affinity → masks (→ segmenter → segments) → evaluation → report.

What is finished is found by its digest and not computed again, so each step also stands alone: it makes what it needs.
"""

import logging
from dataclasses import dataclass
from functools import cached_property

import ray

from raypipe import storage
from raypipe.config import CLASSIFIER, RunConfig, to_yaml
from raypipe.data.checkpoints import Task
from raypipe.pages.report import write_report
from raypipe.pipelines.calibrate import ConfidenceMap, rows_with_truth, run_calibrated, run_calibration
from raypipe.pipelines.context import Context, open_context, start_ray
from raypipe.pipelines.evaluate import has_truth, run_evaluate
from raypipe.pipelines.gate import Decision, Gated, run_gates
from raypipe.pipelines.masks import MaskInputs, masks_steps, run_masks
from raypipe.pipelines.saliency_maps import run_saliency, saliency_steps
from raypipe.pipelines.seeds import given_cams, run_seeds, seeds_steps, seeds_stream
from raypipe.pipelines.segmenter import has_weak_rows, run_segment, segment_steps, train_segmenter
from raypipe.pipelines.self_training import self_train
from raypipe.pipelines.sweep import SweepResult, run_sweep
from raypipe.pipelines.train import given_checkpoint, train_affinity, train_classifier
from raypipe.results import Score
from raypipe.streams import plan as graph

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """Something that a step made: where it is, and a digest that changes with its content."""

    uri: str
    digest: str


class Run:
    """The steps of one config. Each property makes its artifact, and those that it needs, unless they are there."""

    def __init__(self, config: RunConfig) -> None:
        self.context: Context = open_context(config)
        self.config = self.context.config
        self.rounds: list[Decision] = []
        """Decisions of self-training."""
        start_ray(self.config.cluster)

    @cached_property
    def classifier(self) -> Artifact:
        """The trained classifier."""
        given = given_checkpoint(self.context, task="classifier")
        return self._log("classifier", Artifact(*(given or train_classifier(self.context))))

    @cached_property
    def maps(self) -> Artifact:
        """What makes the class activation maps: given ones, or the classifier."""
        given = given_cams(self.context)
        return self._log("maps", Artifact(*given)) if given else self.classifier

    @cached_property
    def saliency(self) -> str:
        """URI of the folder of predicted saliency maps."""
        folder, summary = run_saliency(self.context)
        logger.info("saliency: %s", summary)
        return folder

    @cached_property
    def seeds(self) -> Artifact:
        """Class activation maps and trimaps."""
        folder, summary = run_seeds(self.context, classifier=self.maps.uri, classifier_digest=self.maps.digest)
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
        classifier = self.classifier if self.config.affinity.weights == CLASSIFIER else self.maps
        trained = train_affinity(self.context, seeds=seeds.uri, seeds_digest=seeds.digest, classifier=classifier.uri)
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
    def segmenter(self) -> Artifact:
        """The trained segmentation network."""
        if given := given_checkpoint(self.context, task="segmenter"):
            return self._log("segmenter", Artifact(*given))
        masks = self.masks if has_weak_rows(self.context) else None
        classifier = self.classifier if self.config.segmenter.weights == CLASSIFIER else None
        trained = Artifact(
            *train_segmenter(
                self.context,
                masks=masks.uri if masks else None,
                masks_digest=masks.digest if masks else None,
                classifier=classifier.uri if classifier else None,
                classifier_digest=classifier.digest if classifier else None,
            )
        )
        if self.config.segmenter.rounds and masks is not None:
            uri, digest, self.rounds = self_train(
                self.context,
                segmenter=trained.uri,
                segmenter_digest=trained.digest,
                masks=masks.uri,
                masks_digest=masks.digest,
                classifier=self.classifier.uri,
                classifier_digest=self.classifier.digest,
            )
            trained = Artifact(uri, digest)
        return self._log("segmenter", trained)

    @cached_property
    def segments(self) -> Artifact:
        """Masks of the segmentation network, which needs no labels."""
        segmenter = self.segmenter
        folder, summary = run_segment(self.context, segmenter=segmenter.uri, segmenter_digest=segmenter.digest)
        logger.info("segments: %s", summary)
        return self._log("segments", Artifact(folder, folder.rsplit("/", 1)[-1]))

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
        """URI of the HTML report, with its config beside it; without scores where there are no true masks."""
        masks = self.masks.uri
        evaluation, scores = self.evaluation if has_truth(self.context) else (None, [])
        seeds = seeds_stream(self.context, classifier_digest=self.maps.digest).folder
        networks: dict[Task, str] = {} if given_cams(self.context) else {"classifier": self.classifier.uri}
        if self.affinity is not None:
            networks["affinity"] = self.affinity.uri
        segments = None
        if self.config.segmenter.enabled:
            networks["segmenter"], segments = self.segmenter.uri, self.segments.uri
        # Only here: a step that stands alone, with overrides, must not replace the config of the whole run.
        storage.write_bytes_atomic(storage.join(self.config.out, "config.yaml"), to_yaml(self.config).encode())
        return write_report(
            self.context,
            seeds=seeds,
            masks=masks,
            segments=segments,
            networks=networks,
            evaluation=evaluation,
            scores=scores,
            decisions=[*self.gated.decisions, *self.rounds],
            resources=_cluster_resources(),
        )

    @property
    def scores(self) -> list[Score]:
        """Scores on every split with true masks."""
        return self.evaluation[1]

    @cached_property
    def evaluation(self) -> tuple[str, list[Score]]:
        """URI of the folder of the scores, and the scores."""
        masks = self.masks.uri
        seeds = seeds_stream(self.context, classifier_digest=self.maps.digest).folder
        segments = self.segments.uri if self.config.segmenter.enabled else None
        folder, scores = run_evaluate(self.gated.context, seeds=seeds, masks=masks, segments=segments)
        self._log("evaluate", Artifact(folder, folder.rsplit("/", 1)[-1]))
        return folder, scores

    def _mask_inputs(self) -> MaskInputs:
        affinity = self.affinity
        return {
            "classifier": self.maps.uri,
            "classifier_digest": self.maps.digest,
            "affinity": affinity.uri if affinity else None,
            "affinity_digest": affinity.digest if affinity else None,
            "seeds": seeds_stream(self.context, classifier_digest=self.maps.digest).folder,
        }

    def _log(self, step: str, artifact: Artifact) -> Artifact:
        logger.info("%s: %s (digest %s)", step, artifact.uri, artifact.digest)
        return artifact


def describe(context: Context) -> str:
    """The plan of the streams; computes nothing, starts nothing."""
    seeds = graph.describe(seeds_steps(context, classifier="CLASSIFIER"))
    affinity = None if context.config.walk.affinity == "rgb" else "AFFINITY"
    masks = graph.describe(masks_steps(context, classifier="CLASSIFIER", affinity=affinity, reuse_cams=False))
    segments = graph.describe(segment_steps(context, segmenter="SEGMENTER"))
    saliency = ""
    if context.config.classifier.saliency != "none" and context.config.saliency.source != "given":
        saliency = f"saliency\n{graph.describe(saliency_steps(context))}\n\n"
    return f"{saliency}seeds\n{seeds}\n\nmasks\n{masks}\n\nsegments\n{segments}"


def _cluster_resources() -> str:
    """Returns what Ray has, such as "16 logical CPUs, 8.0 GiB, 2 nodes"."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    parts = [f"{found[name]:g} logical {name}s" for name in ("CPU", "GPU") if name in found]
    parts += [f"{found['memory'] / 2**30:.1f} GiB"] if "memory" in found else []
    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return ", ".join([*parts, f"{nodes} node{'s' if nodes != 1 else ''}"])
