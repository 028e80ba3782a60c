"""How the networks are trained.

Values are those of the papers unless said otherwise; section numbers are AffinityNet's (Ahn & Kwak, CVPR 2018).
"""

from typing import Literal

from pydantic import Field, model_validator

from raypipe.config.base import Backbone, Precision, Section
from raypipe.config.stages import Pamr


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
    """EPS, and EPS++ while it learns as EPS: a class's map has to overlap the saliency more than this to be
    foreground."""
    lam: float = Field(0.5, ge=0, le=1)
    """As `tau`: weight of the foreground's estimate against the background's. The paper: 0.5 for VOC, 0.9 for COCO."""
    ird: bool = True
    """EPS++: drops the pixels whose saliency contradicts the refined foreground; false learns from all."""
    eps_share: float = Field(0.5, ge=0, le=1)
    """EPS++: share of the epochs, the first ones, that learn as EPS. At 0, maps that know nothing yet contradict all
    that is salient, and the network learns that everything is background (benchmarks/saliency.md)."""
    ird_tau: float | None = Field(None, ge=0, le=1)
    """EPS++: leaves classes out of the foreground as EPS does by `tau`; null, the paper's, leaves none out."""
    pamr: Pamr = Pamr()
    """EPS++: what refines the foreground."""
    stride: Literal[1, 2, 4, 8] = 1
    """EPS++: pixels of the crop per pixel of the loss. PAMR takes most of its time and, at 4, a sixteenth of that; its
    dilations count the larger pixels. EPS compares on the network's own grid."""


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
