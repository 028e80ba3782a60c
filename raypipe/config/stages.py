"""How images become maps, trimaps and masks.

Values are those of the papers unless said otherwise; section numbers are AffinityNet's (Ahn & Kwak, CVPR 2018).
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from raypipe.artifacts import NOT_IN_DIGEST
from raypipe.config.base import Section
from raypipe.uri import Uri

Band = Annotated[int, Field(ge=1)]
"""Number of a band of a raster."""


class Images(Section):
    """How images are read."""

    max_side: int = Field(1024, ge=32)
    """Longer images are reduced to this long side, in pixels; masks come back at the original size. Raised, small
    objects are found and time and memory grow with the square."""
    bands: tuple[Band, ...] | None = None
    """TIFF: the bands, numbered from 1, that are red, green and blue to the networks, or the one that is grey, such as
    `[3,2,1]`. Values of other than 8 bits are stretched between their 2nd and 98th percentile of the whole image. null
    takes RGB or one band as it is."""
    tile: int | None = Field(None, ge=64, multiple_of=64)
    """TIFF in tiles or strips, longer than this: masks are made at full size, in tiles of this side that overlap. null
    reduces it as any other image. Raised, networks see more of a scene at once and take more memory."""

    @property
    def by_windows(self) -> bool:
        """Whether some images may be read by windows."""
        return self.bands is not None or self.tile is not None

    @model_validator(mode="after")
    def _windows(self) -> "Images":
        if self.bands is not None and len(self.bands) not in (1, 3):
            raise ValueError(f"bands are three (red, green, blue) or one (grey), got {list(self.bands)}")
        if self.tile is not None and self.tile > self.max_side:
            raise ValueError(
                f"tile {self.tile} is above max_side {self.max_side}: networks see no longer image than that"
            )
        return self


class Cams(Section):
    """Multi-scale class activation maps (§3.1), of the image and its mirror image."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """Scales of the image, relative to its working size, whose maps are added up. Larger ones find smaller parts and
    objects, smaller ones whole large objects; each costs a pass of the image and its mirror image."""
    out_stride: Literal[1, 4] = 4
    """Pixels per cell at which the passes are merged, normalised and stored. 1 is psa's, with sixteen times the cells
    and bytes; take it to compare with psa."""
    refit: Annotated[bool, NOT_IN_DIGEST] = False  # the checkpoint that makes the maps holds it
    """Maps of a linear layer that learns, background included, from the cells of all images that the classifier's maps
    are sure of; one pass of up to 2,000 images. Better where the maps show most of an object, as on photographs; where
    they show a small part, the rest is learned as background. Compare masks with and without."""

    @model_validator(mode="after")
    def _scales(self) -> "Cams":
        if not self.scales or any(not 0.1 <= scale <= 8 for scale in self.scales):
            raise ValueError(f"scales need at least one value, each in 0.1..8, got {self.scales}")
        return self


class Trimaps(Section):
    """Confident areas, from which affinity labels are made (§3.2)."""

    alpha_low: float = Field(4.0, gt=0)
    """Background exponent of the sure objects: a strong background leaves only objects that are sure. Raised, more of
    an image is a sure object; lower it where trimaps show objects that aren't there."""
    alpha_high: float = Field(24.0, gt=0)
    """Background exponent under which background is taken for sure. Raised, less is sure background: do so where
    trimaps call parts of objects background."""
    crf_stride: Literal[1, 2, 4] = 1
    """Pixels per cell at which the dense CRF runs. A trimap has cells of 8 pixels: at 4 it came out as good as at 2 on
    VOC, for a quarter of the time."""
    refine: Literal["dcrf", "pamr"] = "dcrf"
    """What sharpens the maps before they are judged; PAMR at `crf_stride`, too, and its dilations count its cells. A
    matter of trial: compare trimaps in `raypipe explain`."""

    @model_validator(mode="after")
    def _order(self) -> "Trimaps":
        if self.alpha_low >= self.alpha_high:
            raise ValueError(f"alpha_low must be below alpha_high, got {self.alpha_low} and {self.alpha_high}")
        return self


class Walk(Section):
    """Random walk on the affinities (§3.4); by default its steps reach as far as `affinity.radius`."""

    affinity: Literal["learned", "frozen", "rgb"] = "learned"
    """`learned` trains an AffinityNet on the trimaps. `frozen` trains none: two cells are as alike as what the backbone
    sees in them, by the weights of `affinity.start`; take it with strong pretrained weights and little time. `rgb` is
    the baseline: affinities of plain colours."""
    alpha: float = Field(16.0, gt=0)
    """Exponent of the walk's background, (1 - maximum of the maps)^alpha. Raised, the background shrinks and masks
    grow. It depends on the images: `raypipe sweep` chooses it."""
    beta: float = Field(8.0, gt=0)
    """Exponent of the affinities. Raised, weak links are cut and the walk stops at fainter edges; lowered, it spreads
    across them. `raypipe sweep` chooses it."""
    num_steps: int = Field(256, ge=0)
    """Steps of the walk. Raised, maps reach farther along what looks alike; too many let classes run into one another
    where the affinity is weak. 0 walks nowhere. `raypipe sweep` chooses it."""
    radius: int | None = Field(None, ge=1)
    """Reach of a step in cells, at most `affinity.radius`: pairs that are farther apart are left out. Null leaves out
    none."""
    count_padding: bool = False
    """Averages the padding's zeros into the last cells, as psa does. For comparisons with psa alone."""


class Refinement(Section):
    """What sharpens the masks after the walk."""

    method: Literal["none", "dcrf", "pamr"] = "dcrf"
    """What sharpens masks after the walk. The dense CRF and PAMR follow the image's colours and take time on the CPUs,
    or on the GPU with `refinement.device`; `none` keeps the walk's soft outlines."""
    power: float = Field(1.0, gt=0)
    """Exponent of the walked scores before the dense CRF. A walk averages and so flattens the scores: with 1, the CRF's
    smoothing outweighs them after a short walk along weak affinities (VOC, n = 78: 36.2 mIoU with 1, 41.6 with 16).
    Raise it where the CRF eats small or thin objects."""
    compat_bilateral: float = Field(10.0, ge=0)
    """Weight of the dense CRF's term that follows colours, psa's by default. Raised, masks snap to colour edges, those
    inside an object included; lower it where textures tear masks apart."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where masks are refined, those of the segmentation network and trimaps included. `gpu` does it beside the
    networks and leaves the CPUs to decoding and encoding; it is refused where networks get no GPU. A few pixels differ.
    Take it where `raypipe doctor` says that CPUs are short."""
    gate: Literal["off", "run", "image"] = "run"
    """Keeps the walk, and what refines its masks, only where a score that needs no truth says that it helps. `run`
    decides once for all images, on a sample; `image` gives each image the better of its masks before and after what
    refines them, for one more network in the stream; `off` keeps everything. With `run` and `image` each image takes,
    of the walks around `walk`, the one whose mask parts it best. A walk along plain colours has no judge and is left
    alone."""

    @field_validator("gate", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return "off" if value is False else value  # as YAML reads a bare off


class Segmentation(Section):
    """How the segmentation network is used: on the image and its mirror image."""

    splits: tuple[str, ...] | None = None
    """Splits to segment, labelled or not; null takes those that get masks."""
    scales: tuple[float, ...] = (1.0,)
    """Scales of the image at which the segmentation network sees it and its mirror image; the mean counts. More cost a
    pass each."""
    method: Literal["none", "dcrf"] = "none"
    """What sharpens its masks. `dcrf` sharpens outlines and takes CPU time."""


class Inference(Section):
    """How images go through the networks that make masks, and saliency maps."""

    mode: Literal["deterministic", "throughput"] = "deterministic"
    """`deterministic`: every image alone, the same bytes whatever the cluster. `throughput`: images of equal size
    (rounded up to multiples of 8) share passes, for accelerators that one image leaves idle; 99.9 % of pixels agree."""


Channels = float | tuple[float, float, float]
"""One number for all channels, or one each of red, green and blue."""


class Saliency(Section):
    """Where the saliency maps of training images come from, if classifier.saliency asks for any."""

    weights: Uri | None = None
    """URI of a saliency network, an ONNX model, that predicts the maps that the manifest lacks; null predicts none.
    Needed with `classifier.saliency` where the manifest has no `saliency_uri`."""
    preprocessing: Literal["imagenet", "caffe", "tensorflow"] | tuple[Channels, Channels] = "imagenet"
    """What the network was trained on: a name, or mean and deviation of pixels of 0 to 255, each one number or one a
    channel. A network of (x - 128) / 256 wants `[128, 256]`. Its authors say; a wrong one gives pale maps."""

    @field_validator("preprocessing", mode="wrap")
    @classmethod
    def _of_bytes(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            found = validate(value)
        except ValidationError as error:
            raise ValueError(
                "expected imagenet, caffe, tensorflow, or mean and deviation of pixels of 0 to 255, each one number or "
                "one a channel, such as [128, 256] or [[123.7, 116.3, 103.5], [58.4, 57.1, 57.4]]"
            ) from error
        if isinstance(found, str):
            return found
        mean, std = (each if isinstance(each, tuple) else (each,) for each in found)
        means_fit = all(each == 0 or 1 <= each <= 255 for each in mean)
        if not means_fit or not all(1 <= each < math.inf for each in std):
            raise ValueError(
                f"mean {list(mean)} and deviation {list(std)} aren't those of pixels of 0 to 255: means are 0 or 1 to "
                "255, deviations at least 1; multiply what is meant for pixels of 0 to 1 by 255"
            )
        return found
