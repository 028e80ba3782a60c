"""How images become maps, trimaps, masks and exports.

Values are those of the papers unless said otherwise; section numbers are AffinityNet's (Ahn & Kwak, CVPR 2018).
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from raypipe.config.base import Precision, Section


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


class Pamr(Section):
    """Pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020)."""

    num_iters: int = Field(10, ge=1)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)

    @model_validator(mode="after")
    def _positive(self) -> "Pamr":
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations need at least one value, all positive, got {self.dilations}")
        return self


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


class Saliency(Section):
    """Where the saliency maps of training images come from, if classifier.saliency asks for any."""

    source: Literal["given", "csnet", "onnx"] = "given"
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
