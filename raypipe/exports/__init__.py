"""Exports: masks in the formats of other tools. Pure functions of one image's mask; who schedules them is elsewhere."""

from raypipe.exports.base import ExportedRow, Format, Item, MaskRow, Rendered
from raypipe.exports.coco import Coco
from raypipe.exports.fiftyone import FiftyOne
from raypipe.exports.hugging_face import HuggingFace
from raypipe.exports.label_studio import LabelStudio
from raypipe.exports.mmseg import Mmseg
from raypipe.exports.voc import Voc
from raypipe.exports.yolo import Yolo

FORMATS: dict[str, type[Format]] = {
    "coco": Coco,
    "voc": Voc,
    "yolo": Yolo,
    "mmseg": Mmseg,
    "huggingface": HuggingFace,
    "labelstudio": LabelStudio,
    "fiftyone": FiftyOne,
}
"""By the name that `raypipe export` takes."""

__all__ = ["FORMATS", "ExportedRow", "Format", "Item", "MaskRow", "Rendered"]
