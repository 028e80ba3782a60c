"""How the networks are trained.

Values are those of the papers unless said otherwise; section numbers are AffinityNet's (Ahn & Kwak, CVPR 2018).
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from raypipe.artifacts import NOT_IN_DIGEST
from raypipe.config.base import Backbone, Jitter, Precision, Section, Start
from raypipe.uri import Uri


def _range(long_side: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= long_side[0] <= long_side[1]:
        raise ValueError(f"long_side is (low, high) with 1 <= low <= high, got {long_side}")
    return long_side


LongSide = Annotated[tuple[int, int], AfterValidator(_range)]
"""Range of the random long side of an image in pixels, before the crop."""


def _hub(weights: object) -> object:
    """Make a URI of timm's own way to name a repository of the Hugging Face hub."""
    return re.sub(r"^hf-hub:(?!//)", "hf-hub://", weights) if isinstance(weights, str) else weights


class NetworkConfig(Section):
    """The backbone that all networks have, and the weights that their trainings start from."""

    backbone: Backbone = "resnet50"
    """The network that all tasks share: resnet18, resnet34, resnet50, resnet101, mobilenet_v2, resnet38, vgg16, tiny
    (for tests), or timm/NAME of any ConvNet or ViT of timm. Larger ones see more and take more memory; `mobilenet_v2`
    is one for CPUs. `weights` have to fit."""
    weights: Annotated[Uri | None, BeforeValidator(_hub)] = "torchvision://resnet50/IMAGENET1K_V2"
    """URI of pretrained weights, or a name of a registry: `torchvision://MODEL/WEIGHTS`, `timm://NAME.TAG` for the
    backbone `timm/NAME.TAG`, `hf-hub:OWNER/NAME`; null starts from random numbers, which takes far more images and
    epochs."""
    preprocessing: Literal["imagenet", "caffe", "tensorflow"] | None = None
    """What the weights were trained on; null takes the backbone's usual one. Name it for weights of your own."""

    @model_validator(mode="after")
    def _weights(self) -> "NetworkConfig":
        registry, _, rest = (self.weights or "").partition("://")
        # timm's ResNets have torchvision's names.
        named = self.backbone.removeprefix("timm/").partition(".")[0]
        fits = {"torchvision": rest.partition("/")[0] == named, "timm": f"timm/{rest}" == self.backbone}
        if not fits.get(registry, True):
            right = f"; these are for backbone timm/{rest}" if registry == "timm" else ""
            raise ValueError(
                f"backbone {self.backbone} can't take weights {self.weights}{right}; give others, or null for random"
            )
        return self


class Optimizer(Section):
    """Optimiser and schedule of all trainings: learning rate · (1 - step / total)^0.9, per step."""

    name: Literal["adamw", "sgd"] = "adamw"
    """`adamw` suits all backbones; `sgd`, which wants a larger `lr`, is the papers'."""
    new_lr_factor: float = Field(10.0, gt=0)
    """Learning rate of layers that start from random numbers, relative to the training's `lr`. 1 where everything
    starts from random numbers."""
    bias_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of biases relative to their layer's weights. psa: 2."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """SGD's momentum. psa's released code passes its weight decay here by position: it really trains with 5e-4."""
    weight_decay: float = Field(5e-4, ge=0)
    """Not applied to biases and one-dimensional parameters. Raised, small sets are learned by heart less; too much
    keeps networks from learning."""
    warmup_steps: int = Field(0, ge=0)
    """Linear warm-up before the polynomial decay, for a quarter of a training's steps at most. Raise it where a loss
    jumps or becomes NaN in the first steps."""


class TrainingSection(Section):
    """What the config says of every training by itself."""

    epochs: int = Field(15, ge=1)
    """Passes over the training images. Small sets need more of them: VOC's maps got better up to some 360 steps of 16
    images. `raypipe config --for MANIFEST` counts them."""
    batch_size: int = Field(16, ge=1)
    """Images per step over ALL workers. Raised, steps are fewer and wider: raise `lr` with it. Lower it where a
    worker's memory runs out."""
    crop_size: int = Field(448, ge=32, multiple_of=8)
    """Side of the square that is cut out of each image, in pixels. Raised, a network sees more of an object at once and
    memory grows with the square; images shorter than it are padded."""
    max_images: Annotated[int | None, NOT_IN_DIGEST] = Field(200_000, ge=1)
    """Images to learn from, drawn by `seed` where there are more: rare classes first, and true masks. null takes all.
    Lower it to train in less time than a pass over a large set takes."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate of pretrained layers after the warm-up; `optimizer` says what the others get. Raise it where a loss
    falls slowly to the end, lower it where it jumps."""


class SaliencyLoss(Section):
    """How saliency teaches the classifier (EPS: Lee et al., CVPR 2021; EPS++: TPAMI 2023)."""

    eps_share: float = Field(0.5, ge=0, le=1)
    """EPS++: share of the epochs, the first ones, that learn as EPS. At 0, maps that know nothing yet contradict all
    that is salient, and the network learns that everything is background (benchmarks/saliency.md). Raise it where that
    happens."""
    ird_tau: float | None = Field(None, ge=0, le=1)
    """EPS++: leaves classes out of the foreground whose maps overlap the saliency no more than this, as EPS does with
    0.4; null, the paper's, leaves none out. Raise it where labelled things often aren't salient."""
    stride: Literal[1, 2, 4, 8] = 1
    """EPS++: pixels of the crop per pixel of the loss. PAMR takes most of its time and, at 4, a sixteenth of that; its
    dilations count the larger pixels. EPS compares on the network's own grid."""


class ClassifierTraining(TrainingSection):
    """The classification network (AffinityNet §3.1)."""

    output_stride: Literal[8, 16] = 8
    """Pixels per cell of the backbone's last map while it is trained; its maps are always computed at 8. 16 is faster
    and takes less memory."""
    long_side: LongSide = (256, 512)
    """Range of the random long side of a training image in pixels, before the crop. Let it reach from the smallest to
    the largest scale of the maps (`cams.scales`)."""
    saliency: Annotated[Literal["none", "eps", "eps++"], NOT_IN_DIGEST] = "none"
    """Teaches where objects end by saliency maps, as EPS or EPS++ do; the section `saliency` says where from. It suits
    classes that are what one looks at in a photograph."""
    saliency_loss: Annotated[SaliencyLoss, NOT_IN_DIGEST] = SaliencyLoss()


class AffinityTraining(TrainingSection):
    """AffinityNet (§3.2, §3.3)."""

    start: Annotated[Start, NOT_IN_DIGEST] = "pretrained"
    """Weights of the backbone at the start; `classifier` are the trained classifier's, which suits images unlike those
    of the pretrained weights."""
    epochs: int = Field(8, ge=1)
    """As `classifier.epochs`; what is learned of wrong trimaps isn't mended by more of them."""
    batch_size: int = Field(8, ge=1)
    """As `classifier.batch_size`; pairs take more memory than labels."""
    radius: int = Field(5, ge=2, le=16)
    """The paper's gamma: pairs of cells closer than this are learned, and are the steps of the walk. Raised, a step of
    the walk reaches farther; memory and time of training and walk grow with the square."""
    freeze_backbone: bool = False
    """Trains the affinity head alone, in about a third of the time. For strong pretrained weights and few images."""
    jitter: Annotated[Jitter | None, NOT_IN_DIGEST] = None
    """Colour jitter of this training; null takes `jitter`."""


class SegmenterTraining(TrainingSection):
    """The segmentation network (§3.5), of pseudo-masks, of true masks, or of both."""

    enabled: Annotated[bool, NOT_IN_DIGEST] = False
    """`raypipe run` trains it and segments every image that gets masks; `raypipe train segmenter` and `raypipe segment`
    do so in any case. It needs no labels, so it is what new images are segmented with."""
    start: Annotated[Start, NOT_IN_DIGEST] = "pretrained"
    """As `affinity.start`."""
    head: Literal["largefov", "deeplabv3", "deeplabv3plus", "lraspp"] = "deeplabv3"
    """The network's head: `deeplabv3` and `deeplabv3plus` see the surroundings, the latter with finer outlines;
    `largefov` is the papers', `lraspp` the small one for `mobilenet_v2`."""
    long_side: LongSide = (320, 768)
    """As `classifier.long_side`."""
    mask_share: float | None = Field(None, ge=0, le=1)
    """Share of the draws that go to images with true masks (`supervision: mask`); null is theirs among the images.
    Raise it where true masks are few and trusted."""
    min_confidence: float = Field(0.0, ge=0, le=1)
    """Pixels of pseudo-masks below it are ignored. Raised, the network learns from surer and fewer pixels, fewest at
    outlines."""
    rounds: Annotated[int, NOT_IN_DIGEST] = Field(0, ge=0)
    """Rounds of self-training: the network's own masks of the training images, within their labels where they have any,
    take the place of the pseudo-masks where a score that needs no truth says that they are better, and the network that
    learns from them is kept where its own are better still. Rows with `supervision: none` are learned from in these
    rounds alone. Each costs a training and a pass over the images."""
    validation_splits: tuple[str, ...] = ()
    """Splits with true masks that are scored after each epoch; the best epoch's weights are kept. None are by default:
    images that choose a network don't measure it."""


class Training(Section):
    """One training: its own section of the config with what all trainings share. A checkpoint stores it."""

    network: Annotated[NetworkConfig, NOT_IN_DIGEST]
    """The task holds it, too, with the weights that are really taken."""
    optimizer: Optimizer
    precision: Precision
    seed: int
    jitter: Jitter
    repeat_threshold: float | None
    section: ClassifierTraining | AffinityTraining | SegmenterTraining
