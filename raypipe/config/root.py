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
from raypipe.uri import Uri


class Splits(Section):
    """Which rows of the manifest do what; null means all."""

    train: tuple[str, ...] | None = None
    """Splits whose images teach the networks; null takes all rows. Name them as soon as other images are to measure
    what comes out."""
    masks: tuple[str, ...] | None = None
    """Splits that get masks; null takes all rows. Fewer save hours; a segmentation network learns from masks of
    `splits.train` only where these are among them."""


class Checkpoints(Section):
    """What is made already; null makes it."""

    classifier: Uri | None = None
    """Folder of a classifier's checkpoint; null trains one. Name one to use it for several sets of the same classes."""
    affinity: Uri | None = None
    """Folder of an AffinityNet's checkpoint; null trains one. Name one to compare settings of the walk alone."""
    segmenter: Uri | None = None
    """Folder of a segmentation network's checkpoint; null trains one where a step needs it."""
    seeds: Uri | None = None
    """Folder that `raypipe import seeds` wrote: its maps take the place of the classifier's, of which none is then
    trained for them."""


class Cluster(Section):
    """Where a run computes and how wide; nothing here changes a mask.

    What is null is planned from the machine's CPUs, GPUs and memory.
    """

    address: str | None = None
    """Ray address; null starts a local Ray unless RAY_ADDRESS is set. Jobs of `ray job submit` need none."""
    autoscaling: tuple[str, ...] = ()
    """Node types that the cluster's autoscaler brings when they are asked for, each as in
    `nodes=0-8,cpus=64,gpus=8,memory=512` (per node; memory in GiB). Empty plans with the nodes that are there, so an
    autoscaler that isn't named here brings nothing."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of a local Ray; null takes those that this process may use. Lower it on a machine that others work
    on."""
    train_workers: int | None = Field(None, ge=1)
    """Workers of a training, which share the batch; null takes as many as divide it, at most one a GPU, without GPUs
    one a node. More are faster as long as each has some images of the batch."""
    min_train_workers: int | None = Field(None, ge=1)
    """Workers with which a training starts and goes on while nodes for more are missing, with the same batch and loss;
    null waits until all are there. Set it on nodes that come and go. Another width rounds otherwise, so weights are the
    same at the same width only."""
    state_minutes: float = Field(10, gt=0)
    """Minutes between two states of a training: after a fault, no more than this is computed again. Raise it where a
    state takes long to write, lower it on nodes that are taken away often."""
    gpus_per_train_worker: float | None = Field(None, ge=0)
    """GPUs of a training's worker; null gives each one where there are any, 0 trains on CPUs."""
    network_actors: int | None = Field(None, ge=1)
    """Actors of each pool that runs networks; null fills the GPUs, or the CPUs where there are none. Lower it where
    memory runs out."""
    gpus_per_actor: float | None = Field(None, ge=0)
    """GPUs of an actor that runs networks; null shares each GPU among a stream's pools, 0 runs networks on CPUs. Set 1
    where images don't fit into a shared GPU's memory."""
    cpu_actors: int | None = Field(None, ge=1)
    """Actors of each pool that runs no network: fetching, dense CRF, encoding; null lets them grow with their work."""
    rows_per_block: int | None = Field(None, ge=1)
    """Rows that go through the pools together, the grain at which a run resumes; null plans them by the set's size.
    Raised, less is lost between blocks; lowered, less is computed again after a fault, and less memory is taken."""
    start_timeout: float = Field(600, gt=0)
    """Seconds that a run waits while nothing runs on the cluster and no node joins it; then the run ends. Raise it for
    a queue that gives nodes late."""
    row_timeout: float = Field(600, gt=0)
    """Seconds without progress (a row, a pass) after which a process is ended and its rows are tried alone; waiting for
    an object store isn't counted. Raise it for very large images on slow CPUs."""
    object_store_memory: int | None = Field(None, ge=80 * 2**20)
    """Bytes of a local Ray's object store; null takes Ray's share of the memory. Lower it where `/dev/shm` is small."""


class Budget(Section):
    """How many rows may fail before the run does: the larger of the two. A run in which every row fails, fails."""

    max_fraction: float = Field(0.01, ge=0, le=1)
    """Share of the rows that may be quarantined before a run fails. Raise it for data that is known to hold broken
    files; 0 counts `max_rows` alone."""
    max_rows: int = Field(100, ge=0)
    """The same as a number of rows, so that a few broken files don't end the run of a small set. With 0 in both
    no row may fail."""


class RunConfig(Section):
    """Everything that a run needs."""

    manifest: Uri
    """Manifest of the images: a Parquet file, or a folder of its parts, as `raypipe import` writes it."""
    out: Uri
    """Folder or URI that everything is written into. A run with other settings may share it: outputs are kept apart by
    what made them, and what is the same is computed once."""
    seed: int = Field(0, ge=0)
    """Of all trainings and of everything that is drawn at random. Another one makes other networks and so shows how far
    results vary by chance."""
    precision: Precision = "auto"
    """Of all networks; `auto` is bf16 where the hardware multiplies it natively. fp32 is slower and for comparisons
    between machines."""
    jitter: Jitter = (0.3, 0.3, 0.3, 0.1)
    """Colour jitter of all trainings: brightness, contrast, saturation, hue. Raised, networks rely less on colours;
    lower it, hue first, where colours tell the classes apart."""
    repeat_threshold: float | None = Field(None, gt=0, le=1)
    """The classifier's and the segmenter's training draw images of classes that a smaller share of images shows more
    often, by sqrt(threshold / share); null draws every image once an epoch. Set it where some classes are rare;
    `raypipe config --for MANIFEST` says whether they are."""
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

    @property
    def radius(self) -> int:
        """Reach of the walk's steps in cells."""
        return self.affinity.radius if self.walk.radius is None else self.walk.radius

    @model_validator(mode="after")
    def _radius(self) -> "RunConfig":
        if self.radius > self.affinity.radius:
            raise ValueError(
                f"walk.radius is {self.radius}, and the AffinityNet learns pairs of cells that are less than "
                f"affinity.radius={self.affinity.radius} apart: lower the first, or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _tiles(self) -> "RunConfig":
        if self.images.tile is None:
            return self
        if self.refinement.gate == "image":
            raise ValueError(
                "images.tile doesn't go with refinement.gate=image, whose judges see an image at once: run or off"
            )
        if self.classifier.saliency != "none":
            raise ValueError(
                f"images.tile doesn't go with classifier.saliency={self.classifier.saliency}: tiles have no saliency"
            )
        if self.cams.refit:
            raise ValueError("images.tile doesn't go with cams.refit, which looks at whole images: set it to false")
        return self

    @model_validator(mode="after")
    def _frozen(self) -> "RunConfig":
        if self.walk.affinity != "frozen":
            return self
        if self.checkpoints.affinity is not None:
            raise ValueError(
                "walk.affinity=frozen doesn't go with checkpoints.affinity, a network that was made already: to walk "
                "along that one, set walk.affinity=learned"
            )
        if self.affinity.start == "pretrained" and self.network.weights is None:
            raise ValueError(
                "walk.affinity=frozen walks along what pretrained weights see, and network.weights is null: give some, "
                "or set affinity.start=classifier"
            )
        return self
