"""Which networks and seeds a run needs, by its config."""

from raypipe.artifacts import Artifact
from raypipe.config import RunConfig
from raypipe.pipelines.context import Context


def makes_seeds(config: RunConfig) -> bool:
    """Whether a run computes seeds, whose maps its masks take up: an AffinityNet is to be trained."""
    return config.walk.affinity == "learned" and config.checkpoints.affinity is None


def needs_affinity(config: RunConfig) -> bool:
    """Whether a run makes a network to walk along, trained or not."""
    return config.walk.affinity != "rgb" and config.checkpoints.affinity is None


def trains_segmenter(config: RunConfig) -> bool:
    """Whether a run trains a segmentation network."""
    return config.segmenter.enabled and config.checkpoints.segmenter is None


def has_given_seeds(context: Context) -> bool:
    """Whether another program's maps take the place of the classifier's."""
    return context.provider is not None or context.config.checkpoints.seeds is not None


def judges_refinement(config: RunConfig) -> bool:
    """Whether a classifier is asked what the refinement of masks is worth."""
    return config.refinement.gate != "off" and config.refinement.method != "none"


def uses_classifier(context: Context) -> bool:
    """Whether a run needs a classifier: for its maps, unless they are given, to start from it, or as a judge.

    For a judgement alone none is trained, which would take longer than all else that is made of given seeds.
    """
    config = context.config
    return (
        not has_given_seeds(context)
        or (needs_affinity(config) and config.affinity.start == "classifier")
        or (trains_segmenter(config) and (config.segmenter.start == "classifier" or config.segmenter.rounds > 0))
        or (judges_refinement(config) and config.checkpoints.classifier is not None)
    )


def judge_of(context: Context, *, maps: Artifact, judge: Artifact | None) -> Artifact | None:
    """The classifier that judges what refines masks: the one whose maps they are; of given seeds `judge`, if any."""
    return judge if has_given_seeds(context) else maps
