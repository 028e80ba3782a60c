"""The sections of a config: one frozen, validated model a stage; algorithm and cluster apart.

Values are those of the papers unless said otherwise; section numbers are AffinityNet's (Ahn & Kwak, CVPR 2018).
"""

from collections.abc import Mapping
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Backbone = Literal["resnet38", "vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "tiny"]
Precision = Literal["auto", "fp32", "bf16"]

CLASSIFIER = "classifier"
"""Value of affinity.weights: start from the trained classifier."""


class Section(BaseModel):
    """A frozen part of the config that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Pamr(Section):
    """Pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020)."""

    num_iters: int = Field(10, ge=1)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)

    @model_validator(mode="after")
    def _positive(self) -> "Pamr":
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations need at least one value, all positive, got {self.dilations}")
        return self


class Optimizer(Section):
    """Optimiser and schedule: learning rate · (1 - step / total)^power, per step."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-4, gt=0)
    new_lr_factor: float = Field(10.0, gt=0)
    """Learning rate of layers that start from random numbers, relative to `lr`."""
    bias_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of biases relative to their layer's weights. psa: 2."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """SGD's momentum. psa's released code passes its weight decay here by position: it really trains with 5e-4."""
    weight_decay: float = Field(5e-4, ge=0)
    """Not applied to biases and one-dimensional parameters."""
    power: float = Field(0.9, ge=0)
    """Exponent of the poly schedule."""
    warmup_steps: int = Field(0, ge=0)
    """Linear warm-up before the poly schedule."""


class Training(Section):
    """What the training of every network has in common."""

    backbone: Backbone = "resnet50"
    weights: str | None = "torchvision://resnet50/IMAGENET1K_V2"
    """URI of pretrained weights, or a name of torchvision's registry; null starts from random numbers."""
    preprocessing: Literal["imagenet", "caffe", "tensorflow"] | None = None
    """What the weights were trained on; null takes the backbone's usual one."""
    epochs: int = Field(15, ge=1)
    batch_size: int = Field(16, ge=1)
    """Images per step over ALL workers."""
    crop_size: int = Field(448, ge=32, multiple_of=8)
    optimizer: Optimizer = Optimizer()
    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    """Colour jitter: brightness, contrast, saturation, hue."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay a step of the exponential moving average of the weights that is kept and used; 0 uses the last weights."""
    precision: Precision = "auto"
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _weights(self) -> "Training":
        if self.weights and self.weights.startswith("torchvision://") and self.weights.split("/")[2] != self.backbone:
            raise ValueError(
                f"backbone {self.backbone} can't take weights {self.weights}; give others, or null for random"
            )
        return self


class SaliencyLoss(Section):
    """How saliency teaches the classifier (EPS: Lee et al., CVPR 2021; EPS++: TPAMI 2023)."""

    tau: float = Field(0.4, ge=0, le=1)
    """EPS: a class's map has to overlap the saliency more than this to be foreground."""
    lam: float = Field(0.5, ge=0, le=1)
    """EPS: weight of the foreground's estimate against the background's. The paper: 0.5 for VOC, 0.9 for COCO."""
    ird: bool = True
    """EPS++: drops the pixels whose saliency contradicts the refined foreground; false learns from all."""
    pamr: Pamr = Pamr()
    """EPS++: what refines the foreground."""


class BalancedTraining(Training):
    """A training that may draw some images more often than others."""

    repeat_threshold: float | None = Field(None, gt=0, le=1)
    """Draws images of classes that a smaller share of images shows more often, by sqrt(threshold / share); null draws
    every image once an epoch."""


class ClassifierTraining(BalancedTraining):
    """The classification network (AffinityNet §3.1)."""

    output_stride: Literal[8, 16] = 8
    long_side: tuple[int, int] = (256, 512)
    """Range of the random long side in pixels, before the crop."""
    saliency: Literal["none", "eps", "eps++"] = "none"
    """Teaches where objects end by saliency maps, as EPS or EPS++ do; the section `saliency` says where from."""
    saliency_loss: SaliencyLoss = SaliencyLoss()

    @model_validator(mode="after")
    def _range(self) -> "ClassifierTraining":
        if not 1 <= self.long_side[0] <= self.long_side[1]:
            raise ValueError(f"long_side is (low, high) with 1 <= low <= high, got {self.long_side}")
        return self


class AffinityTraining(Training):
    """AffinityNet (§3.2, §3.3)."""

    epochs: int = Field(8, ge=1)
    batch_size: int = Field(8, ge=1)
    weights: str | None = "torchvision://resnet50/IMAGENET1K_V2"
    """As the classifier's; `classifier` starts from the trained classifier, of the same backbone."""
    radius: int = Field(5, ge=2, le=16)
    """The paper's gamma: pairs closer than this many cells."""
    freeze_backbone: bool = False
    """Trains the affinity head alone, in about a third of the time."""
    depths: tuple[str, str, str] | None = None
    """The backbone's depths that the affinity head reads, shallow first; null takes the backbone's usual ones."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class SegmenterTraining(BalancedTraining):
    """The segmentation network (§3.5), of pseudo-masks, of true masks, or of both."""

    enabled: bool = False
    """`raypipe run` trains it and segments every image that gets masks; `raypipe train segmenter` and `raypipe segment`
    do so in any case."""
    weights: str | None = "torchvision://resnet50/IMAGENET1K_V2"
    """As the classifier's; `classifier` starts from the trained classifier, of the same backbone."""
    head: Literal["largefov", "deeplabv3", "deeplabv3plus", "lraspp"] = "deeplabv3"
    output_stride: Literal[8, 16] = 8
    long_side: tuple[int, int] = (320, 768)
    """Range of the random long side in pixels, before the crop."""
    mask_share: float | None = Field(None, ge=0, le=1)
    """Share of the draws that go to images with true masks (`supervision: mask`); null is theirs among the images."""
    weak_weight: float = Field(1.0, ge=0)
    """Weight of the pseudo-masks' loss beside that of the true masks."""
    min_confidence: float = Field(0.0, ge=0, le=1)
    """Pixels of pseudo-masks below it are ignored."""
    confidence_power: float = Field(0.0, ge=0)
    """Pixels of pseudo-masks weigh confidence^power; 0 weighs all alike."""
    robustness: float = Field(0.0, ge=0, le=1)
    """q of the generalised cross entropy of pseudo-masks, which learns less from labels that look wrong (Zhang &
    Sabuncu, 2018); 0 is cross entropy."""
    rounds: int = Field(0, ge=0)
    """Rounds of self-training: the network's own masks of the training images, within their labels where they have any,
    take the place of the pseudo-masks, as long as a score that needs no truth says that they are better. Rows with
    `supervision: none` are learned from in these rounds alone."""
    round_min_confidence: float = Field(0.5, ge=0, le=1)
    """`min_confidence` of the network's own masks."""
    validation_splits: tuple[str, ...] = ()
    """Splits with true masks that are scored after each epoch; the best epoch's weights are kept. None are by
    default: images that choose a network don't measure it."""

    @model_validator(mode="after")
    def _range(self) -> "SegmenterTraining":
        if not 1 <= self.long_side[0] <= self.long_side[1]:
            raise ValueError(f"long_side is (low, high) with 1 <= low <= high, got {self.long_side}")
        return self


class Images(Section):
    """How images are read."""

    max_side: int = Field(1024, ge=32)
    """Longer images are reduced to this long side; masks come back at the original size."""


class Cams(Section):
    """Multi-scale class activation maps (§3.1)."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    mirror: bool = True
    output_stride: Literal[8, 16] = 8
    out_stride: Literal[1, 4] = 4
    """Pixels per cell at which the passes are merged, normalised and stored. psa: 1."""
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _scales(self) -> "Cams":
        if not self.scales or any(not 0.1 <= scale <= 8 for scale in self.scales):
            raise ValueError(f"scales need at least one value, each in 0.1..8, got {self.scales}")
        return self


class DenseCrf(Section):
    """Fully connected CRF (Krähenbühl & Koltun, 2011), psa's values."""

    num_iters: int = Field(10, ge=1)
    sxy_gaussian: float = Field(3.0, gt=0)
    compat_gaussian: float = Field(3.0, ge=0)
    sxy_bilateral: float = Field(80.0, gt=0)
    srgb: float = Field(13.0, gt=0)
    compat_bilateral: float = Field(10.0, ge=0)


class Trimaps(Section):
    """Confident areas, from which affinity labels are made (§3.2)."""

    alpha_low: float = Field(4.0, gt=0)
    """Background exponent of the sure objects: a strong background leaves only objects that are sure."""
    alpha_high: float = Field(24.0, gt=0)
    """Background exponent under which background is taken for sure."""
    crf_stride: Literal[1, 2, 4] = 1
    """Pixels per cell at which the dense CRF runs. A trimap has cells of 8 pixels: at 4 it came out as good as at 2
    on VOC, for a quarter of the time."""
    refine: Literal["dcrf", "pamr"] = "dcrf"
    """What sharpens the maps before they are judged; PAMR at `crf_stride`, too, and its dilations count its cells."""
    dense_crf: DenseCrf = DenseCrf()
    pamr: Pamr = Pamr()

    @model_validator(mode="after")
    def _order(self) -> "Trimaps":
        if self.alpha_low >= self.alpha_high:
            raise ValueError(f"alpha_low must be below alpha_high, got {self.alpha_low} and {self.alpha_high}")
        return self


class Walk(Section):
    """Random walk on the affinities (§3.4)."""

    affinity: Literal["learned", "rgb"] = "learned"
    """`rgb` is the baseline: affinities of plain colours, nothing learned."""
    alpha: float = Field(16.0, gt=0)
    beta: float = Field(8.0, gt=0)
    num_steps: int = Field(256, ge=0)
    radius: int | None = Field(None, ge=2, le=16)
    """Reach of the walk's steps in cells; null takes that of the AffinityNet's training."""
    tol: float = Field(1e-5, gt=0, lt=1)
    count_padding: bool = False
    """Averages the padding's zeros into the last cells, as psa does."""
    precision: Precision = "auto"


class Refinement(Section):
    """What sharpens the masks after the walk."""

    method: Literal["none", "dcrf", "pamr"] = "dcrf"
    power: float = Field(1.0, gt=0)
    """Exponent of the walked scores before the dense CRF. A walk averages and so flattens the scores: with 1, the CRF's
    smoothing outweighs them after a short walk along weak affinities (VOC, n = 78: 36.2 mIoU with 1, 41.6 with 16)."""
    dense_crf: DenseCrf = DenseCrf()
    pamr: Pamr = Pamr()
    gate: Literal["off", "run", "image"] = "run"
    """Keeps the walk, and what refines its masks, only where a score that needs no truth says that it helps. `run`
    decides once for all images, on a sample; `image` gives each image the better of its masks, for one more network in
    the stream. A walk along plain colours has no judge and is left alone."""
    gate_images: int = Field(64, ge=1)
    """Images with labels in the sample of `gate=run`."""

    @field_validator("gate", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return "off" if value is False else value  # as YAML reads a bare off


class Segmentation(Section):
    """How the segmentation network is used."""

    splits: tuple[str, ...] | None = None
    """Splits to segment; null takes those that get masks."""
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = True
    method: Literal["none", "dcrf"] = "none"
    """What sharpens its masks."""
    dense_crf: DenseCrf = DenseCrf()
    precision: Precision = "auto"


class Inference(Section):
    """How images go through the networks that make masks."""

    mode: Literal["deterministic", "throughput"] = "deterministic"
    """`deterministic`: every image alone, the same bytes whatever the cluster. `throughput`: images of equal size
    (rounded up to multiples of 8) share passes, for accelerators that one image leaves idle; 99.9 % of pixels agree."""
    rows_per_call: int = Field(16, ge=1)
    """Throughput: rows among which images of equal size are found."""
    pixels_per_pass: int = Field(8_000_000, ge=1)
    """Throughput: pixels of a pass, mirror images not counted; what fits into the accelerator's memory."""


class Evaluation(Section):
    """Scores against true masks, where the manifest has them."""

    splits: tuple[str, ...] | None = None
    """Splits to score, each on its own; null scores every split that has true masks."""
    threshold_split: str | None = None
    """Split on which the constant background threshold of CAMs is chosen, for all splits; null takes the first."""
    thresholds: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 17))


TRAINED = ("classifier", "cams", "trimaps", "affinity", "checkpoints")
"""Sections that make the networks: what an outer sweep may change without scoring other images, or otherwise."""


def flat_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names to values, of one combination of `sweep.training`: what is named in mappings beside the rest."""
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


class Sweep(Section):
    """Settings of the walk that are compared in one pass: every combination, the config's own and the paper's."""

    alphas: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    betas: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    steps: tuple[int, ...] = (0, 4, 8, 16, 32, 64, 128, 256, 512)
    radii: tuple[int, ...] | None = None
    """null takes the walk's."""
    splits: tuple[str, ...] | None = None
    """Splits whose images are scored; null takes those that get masks."""
    num_images: int | None = Field(1000, ge=1)
    """Images that are scored, drawn at random; null takes all."""
    num_labelled: int = Field(0, ge=0)
    """True masks, of images drawn at random, that the choice may use; 0 chooses by what is known without truth."""
    num_finalists: int = Field(10, ge=1)
    """The best settings without truth: `num_labelled` true masks choose among them, and where there are true masks they
    are scored again at full resolution."""
    stride: Literal[1, 4] = 4
    """Pixels per counted pixel of the first scoring, in both directions."""
    seed: int = Field(0, ge=0)
    training: dict[str, tuple[Any, ...]] = {}
    """Outer sweep: dotted names of what is trained to values, such as `{classifier.optimizer.lr: [1e-4, 3e-4]}`. Every
    combination is a trial of Ray Tune: its networks are trained, then swept. What changes together is a mapping,
    under any name: `{network: [{classifier.backbone: vgg16, classifier.weights: null}, {classifier.epochs: 30}]}`."""
    scheduler: Literal["fifo", "asha"] = "fifo"
    """`asha` stops a trial early (Li et al., 2020) if its classifier's training loss is above the median of those
    before at the same epoch. For values under which losses compare: more epochs, or harder crops, lose."""

    @model_validator(mode="after")
    def _values(self) -> "Sweep":
        for name in ("alphas", "betas", "steps", "radii"):
            values = getattr(self, name)
            if values is not None and not values:
                raise ValueError(f"{name} needs at least one value")
        for name, lowest in (("alphas", 0.0), ("betas", 0.0), ("steps", -1), ("radii", 1)):
            if any(value <= lowest for value in getattr(self, name) or ()):
                raise ValueError(f"{name} are above {lowest:g}, got {getattr(self, name)}")
        return self

    @property
    def training_changes(self) -> list[dict[str, Any]]:
        """What each trial changes, dotted names to values: every combination of `training`."""
        return [
            flat_changes(dict(zip(self.training, values, strict=True))) for values in product(*self.training.values())
        ]

    @model_validator(mode="after")
    def _training(self) -> "Sweep":
        for name, values in self.training.items():
            if not values:
                raise ValueError(f"training needs at least one value of {name}")
        names = sorted({str(name) for changes in self.training_changes for name in changes})
        for name in names:
            section, _, rest = name.partition(".")
            if section not in TRAINED or not rest:
                raise ValueError(f"training takes dotted names in {', '.join(TRAINED)}, got {name!r}")
        if self.scheduler == "asha" and not any(name.startswith("classifier.") for name in names):
            raise ValueError(
                "scheduler asha watches the classifier's training; name a classifier.… in training, or fifo"
            )
        return self


class Calibration(Section):
    """The masks' confidence made a probability, by a few of the true masks."""

    num_images: int = Field(50, ge=1)
    """Images that the probabilities are fitted on; the other images with true masks measure them."""
    splits: tuple[str, ...] | None = None
    """Splits from which those images are drawn; null draws from all that have masks and true masks."""
    seed: int = Field(0, ge=0)
    """Another seed draws other images."""
    max_risk: float | None = Field(None, ge=0, le=1)
    """Calibrated masks get 255 (ignore) where a pixel's label is wrong with a larger probability; null keeps all."""


class Splits(Section):
    """Which rows of the manifest do what; null means all."""

    train: tuple[str, ...] | None = None
    masks: tuple[str, ...] | None = None


class Saliency(Section):
    """Where the saliency maps of training images come from, if classifier.saliency asks for any."""

    source: Literal["given", "csnet", "u2netp", "onnx"] = "given"
    """`given`: the manifest's saliency_uri. Else a network predicts the maps that the manifest lacks."""
    weights: str | None = None
    """URI of the network's published weights, or of an ONNX model."""
    side: int | None = Field(None, ge=32, multiple_of=16)
    """Pixels of the network's input, both sides; null takes the network's usual."""

    @model_validator(mode="after")
    def _needs_weights(self) -> "Saliency":
        if (self.source == "given") != (self.weights is None):
            raise ValueError(
                f"source {self.source} and weights {self.weights} don't go together: a network needs weights, "
                "maps that are given need none"
            )
        return self


class Checkpoints(Section):
    """Networks that are trained already; null trains them."""

    classifier: str | None = None
    affinity: str | None = None
    segmenter: str | None = None


class ReportOptions(Section):
    """How much the HTML report shows."""

    num_samples: int = Field(6, ge=0, le=100)
    """Images of each kind: best, worst, random."""


class Export(Section):
    """What other tools get; each format takes what it has a use for."""

    splits: tuple[str, ...] | None = None
    """Splits whose masks are exported; null takes all that there are."""
    min_confidence: float = Field(0.0, ge=0, le=1)
    """Pixels whose confidence is lower are ignored; true masks have none and stay."""
    copy_images: bool = False
    """Exports the image files too, as they are; else only their URIs."""
    instances: bool = True
    """COCO: an annotation is a connected component; else all of a class, as in its "stuff"."""
    min_area: int = Field(1, ge=1)
    """COCO, YOLO: pixels that a connected component needs, or it becomes background."""
    tolerance: float = Field(0.0, ge=0)
    """YOLO: pixels that a corner which is left out may lie off the polygon; 0 keeps polygons exact, and long."""


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
        for name in ("affinity", "segmenter"):
            training: Training = getattr(self, name)
            if training.weights == CLASSIFIER and training.backbone != self.classifier.backbone:
                raise ValueError(
                    f"{name}.weights=classifier needs the classifier's backbone, {self.classifier.backbone}; "
                    f"{name}.backbone is {training.backbone}"
                )
        return self
