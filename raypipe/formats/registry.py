"""Lists the formats that masks are exported in."""

from raypipe.formats.base import Format
from raypipe.formats.coco.write import Coco
from raypipe.formats.fiftyone.write import FiftyOne
from raypipe.formats.geotiff.write import GeoTiff
from raypipe.formats.hugging_face.write import HuggingFace
from raypipe.formats.label_studio.write import LabelStudio
from raypipe.formats.mmseg.write import Mmseg
from raypipe.formats.voc.write import Voc
from raypipe.formats.yolo.write import Yolo

FORMATS: dict[str, type[Format]] = {
    "coco": Coco,
    "voc": Voc,
    "yolo": Yolo,
    "mmseg": Mmseg,
    "huggingface": HuggingFace,
    "labelstudio": LabelStudio,
    "fiftyone": FiftyOne,
    "geotiff": GeoTiff,
}
"""Export formats by the name that `raypipe export` takes."""
