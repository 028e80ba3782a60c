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
    """Where and how wide; nothing here changes a mask."""

    address: str | None = None
    """Ray address; null starts a local Ray unless RAY_ADDRESS is set."""
    autoscaling: bool = False
    """The cluster brings nodes when they are asked for; else a stream for which it is too small is refused."""
    num_cpus: int | None = Field(None, ge=4)
    """Logical CPUs of a local Ray; null takes the cores, at least 16: a stream holds one for each actor."""
    train_workers: int = Field(1, ge=1)
    gpus_per_train_worker: float = Field(0, ge=0)
    loader_actors: int = Field(2, ge=1)
    """Actors per training worker that load and augment crops."""
    network_actors: int = Field(1, ge=1)
    """Actors of each stage that holds a network, at the start."""
    max_network_actors: int | None = Field(None, ge=1)
    """The pools grow up to here while rows wait, where nodes come and go; null keeps `network_actors`."""
    gpus_per_actor: float = Field(0, ge=0)
    threads_per_actor: int | None = Field(None, ge=1)
    """torch's threads in a network actor or training worker; null shares the cores out among them."""
    cpu_actors: int | None = Field(None, ge=1)
    """Actors of each stage that needs no network: decoding, dCRF, encoding. null lets each pool grow with its work, so
    that networks don't wait: up to the cores of a local Ray, as far as there are CPUs on a cluster."""
    rows_per_shard: int = Field(32, ge=1)
    """Rows per output file, the grain at which a run resumes."""
    object_store_memory: int | None = Field(None, ge=80 * 2**20)
    """Bytes of a local Ray's object store."""

    @model_validator(mode="after")
    def _growth(self) -> "Cluster":
        if self.max_network_actors is not None and self.max_network_actors < self.network_actors:
            raise ValueError(
                f"max_network_actors is {self.max_network_actors}, needed is at least network_actors, "
                f"{self.network_actors}, or null"
            )
        return self


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
