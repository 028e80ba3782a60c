"""A run: which rows, where, and all sections together; algorithm and cluster apart."""

from typing import Literal

from pydantic import Field, model_validator

from raypipe.config.base import Jitter, Precision, Section
from raypipe.config.selection import Calibration, Evaluation, Sweep
from raypipe.config.stages import Cams, Images, Inference, Refinement, Saliency, Segmentation, Trimaps, Walk
from raypipe.config.training import (
    AffinityTraining,
    ClassifierTraining,
    NetworkConfig,
    Optimizer,
    SegmenterTraining,
    Training,
)


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
    seed: int = Field(0, ge=0)
    """Of all trainings and of everything that is drawn at random."""
    precision: Precision = "auto"
    """Of all networks; `auto` is bf16 where the hardware multiplies it natively."""
    jitter: Jitter = (0.3, 0.3, 0.3, 0.1)
    """Colour jitter of all trainings: brightness, contrast, saturation, hue."""
    repeat_threshold: float | None = Field(None, gt=0, le=1)
    """The classifier's and the segmenter's training draw images of classes that a smaller share of images shows more
    often, by sqrt(threshold / share); null draws every image once an epoch."""
    images: Images = Images()
    splits: Splits = Splits()
    network: NetworkConfig = NetworkConfig()
    optimizer: Optimizer = Optimizer()
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
    budget: Budget = Budget()
    cluster: Cluster = Cluster()

    def training(self, task: Literal["classifier", "affinity", "segmenter"]) -> Training:
        """What the training of a network is told, and no more: a training depends on all of it."""
        jitter = self.affinity.jitter if task == "affinity" else None
        return Training(
            network=self.network,
            optimizer=self.optimizer,
            precision=self.precision,
            seed=self.seed,
            jitter=self.jitter if jitter is None else jitter,
            repeat_threshold=None if task == "affinity" else self.repeat_threshold,
            section=getattr(self, task),
        )

    @model_validator(mode="after")
    def _given_maps(self) -> "RunConfig":
        if self.checkpoints.cams is not None and self.refinement.gate != "off":
            raise ValueError(
                f"checkpoints.cams needs refinement.gate=off, got {self.refinement.gate}: the classifier that would "
                "judge isn't the one that made the maps"
            )
        return self
