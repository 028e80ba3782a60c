"""A run: which rows, where, and all sections together; algorithm and cluster apart."""

from pydantic import Field, model_validator

from raypipe.config.base import CLASSIFIER, Section
from raypipe.config.selection import Calibration, Evaluation, Sweep
from raypipe.config.stages import Cams, Export, Images, Inference, Refinement, Saliency, Segmentation, Trimaps, Walk
from raypipe.config.training import AffinityTraining, ClassifierTraining, SegmenterTraining, Training


class Splits(Section):
    """Which rows of the manifest do what; null means all."""

    train: tuple[str, ...] | None = None
    masks: tuple[str, ...] | None = None


class Checkpoints(Section):
    """What is made already; null makes it."""

    classifier: str | None = None
    affinity: str | None = None
    segmenter: str | None = None
    cams: str | None = None
    """Folder that `raypipe import cams` wrote: its maps take the place of the classifier's."""


class ReportOptions(Section):
    """How much the HTML report shows."""

    num_samples: int = Field(6, ge=0, le=100)
    """Images of each kind: best, worst, random."""
    price_per_hour: float | None = Field(None, ge=0)
    """What all machines of a run together cost in an hour, in any currency; null leaves cost out of the report."""


class Review(Section):
    """Masks that people look at first."""

    num_images: int = Field(100, ge=1, le=1000)
    """Length of the queue."""
    splits: tuple[str, ...] | None = None
    """Splits whose masks are ranked; null ranks all that there are. Rows whose true mask is given are left out."""


class Cluster(Section):
    """Where a run computes and how wide; nothing here changes a mask.

    What is null is planned from the machine's CPUs, GPUs and memory.
    """

    address: str | None = None
    """Ray address; null starts a local Ray unless RAY_ADDRESS is set."""
    autoscaling: tuple[str, ...] = ()
    """Node types that the cluster's autoscaler brings when they are asked for, each as in
    `nodes=0-8,cpus=64,gpus=8,memory=512` (per node; memory in GiB). Empty plans with the nodes that are there."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of a local Ray; null takes those that this process may use."""
    train_workers: int | None = Field(None, ge=1)
    """Workers of a training, which share the batch; null takes as many as divide it, at most one a GPU, without GPUs
    one a node."""
    gpus_per_train_worker: float | None = Field(None, ge=0)
    """null gives each worker a GPU where there are any; 0 trains on CPUs."""
    network_actors: int | None = Field(None, ge=1)
    """Actors of each pool that runs networks; null fills the GPUs, or the CPUs where there are none."""
    gpus_per_actor: float | None = Field(None, ge=0)
    """GPUs of an actor that runs networks; null shares each GPU among a stream's pools, 0 runs networks on CPUs."""
    cpu_actors: int | None = Field(None, ge=1)
    """Actors of each pool that runs no network: fetching, dense CRF, encoding; null lets them grow with their work."""
    rows_per_shard: int = Field(32, ge=1)
    """Rows per output file, the grain at which a run resumes."""
    start_timeout: float = Field(600, gt=0)
    """Seconds that a run waits for actors or workers while nothing runs and no node is on its way; then it ends."""
    object_store_memory: int | None = Field(None, ge=80 * 2**20)
    """Bytes of a local Ray's object store."""


class Budget(Section):
    """How many rows may fail before the run does: the larger of the two. A run in which every row fails, fails."""

    max_fraction: float = Field(0.01, ge=0, le=1)
    max_rows: int = Field(100, ge=0)


class RunConfig(Section):
    """Everything that a run needs."""

    manifest: str
    out: str
    images: Images = Images()
    splits: Splits = Splits()
    classifier: ClassifierTraining = ClassifierTraining()
    cams: Cams = Cams()
    trimaps: Trimaps = Trimaps()
    affinity: AffinityTraining = AffinityTraining()
    walk: Walk = Walk()
    inference: Inference = Inference()
    refinement: Refinement = Refinement()
    evaluation: Evaluation = Evaluation()
    segmenter: SegmenterTraining = SegmenterTraining()
    segmentation: Segmentation = Segmentation()
    sweep: Sweep = Sweep()
    calibration: Calibration = Calibration()
    saliency: Saliency = Saliency()
    checkpoints: Checkpoints = Checkpoints()
    report: ReportOptions = ReportOptions()
    export: Export = Export()
    review: Review = Review()
    budget: Budget = Budget()
    png: bool = False
    """Writes each mask as a PNG file too."""
    cluster: Cluster = Cluster()

    @property
    def walk_radius(self) -> int:
        """Reach of the walk's steps in cells."""
        return self.affinity.radius if self.walk.radius is None else self.walk.radius

    @model_validator(mode="after")
    def _start(self) -> "RunConfig":
        if self.classifier.weights == CLASSIFIER:
            raise ValueError("classifier.weights can't be the classifier itself; give a URI, or null for random")
        if self.checkpoints.cams is not None and self.refinement.gate != "off":
            raise ValueError(
                f"checkpoints.cams needs refinement.gate=off, got {self.refinement.gate}: the classifier that would "
                "judge isn't the one that made the maps"
            )
        for name in ("affinity", "segmenter"):
            training: Training = getattr(self, name)
            if training.weights == CLASSIFIER and training.backbone != self.classifier.backbone:
                raise ValueError(
                    f"{name}.weights=classifier needs the classifier's backbone, {self.classifier.backbone}; "
                    f"{name}.backbone is {training.backbone}"
                )
        return self
