"""The data contract: constants and Arrow schemas of everything that raypipe reads and writes.

Conventions: class ids are 0 for background, 1..C for the dataset's classes in the manifest's order, 255 for "ignore".
They are the same in seeds, masks, metrics and reports. Only a classifier's output has C channels, and its channel c
stands for class id c + 1.
"""

from typing import Literal

import pyarrow as pa

BACKGROUND = 0
IGNORE = 255
MAX_CLASSES = 254
"""Most classes of a dataset: masks are 8-bit, and 0 and 255 are taken."""

RESERVED = ("background", "ignore", "void")
"""Names that no class can have, in small letters: they mean ids 0 and 255."""

SUPERVISED, WEAK, UNSUPERVISED = "mask", "weak", "none"
"""What a row's column `supervision` says: it has a true mask, image-level labels, or neither. Null is `weak`."""

GRID_STRIDE: Literal[8] = 8
"""Pixels per cell of the feature grid, on which affinities and the random walk live."""

CLASSES_KEY = b"raypipe.classes"
"""Schema metadata key: the JSON list of class names, in class-id order without background."""

PROVENANCE_KEY = b"raypipe.provenance"
"""Schema metadata key: JSON of config, checkpoint digests and version."""

ROW_DIGEST = "row_digest"
"""Column of every shard and quarantine table: digest of what was read of the row that the output was made of."""

SHARD_URI, SHARD_ROW, SHARD_DIGEST = "shard_uri", "shard_row", "shard_digest"
"""Columns of rows whose earlier output a stream takes up: the shard that holds it, the row's number in it from 0, and
its `row_digest`."""

PREDICTED_URI = f"saliency_{SHARD_URI}"
"""Column of the file that holds a row's predicted saliency map."""


def columns(schema: pa.Schema, *names: str) -> pa.Schema:
    """Returns the named columns of a schema."""
    return pa.schema([schema.field(name) for name in names])


MANIFEST = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_uri", pa.string()),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("split", pa.string()),
        pa.field("mask_uri", pa.string()),
        pa.field("saliency_uri", pa.string()),
        pa.field("supervision", pa.string()),
    ]
)
"""One row for each image. `labels`: class names; an empty list means "no object", null "not labelled". The last
three columns may be missing."""

SEEDS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("class_ids", pa.list_(pa.uint8())),
        pa.field("cam", pa.binary()),
        pa.field("cam_height", pa.int32()),
        pa.field("cam_width", pa.int32()),
        pa.field("trimap", pa.binary()),
    ]
)
"""`height, width`: working size (after EXIF rotation and max_side). `cam`: float16 bytes of (K, cam_height, cam_width).
`trimap`: 8-bit PNG."""

GIVEN_SEEDS = pa.schema(
    [
        pa.field("seed_classes", pa.list_(pa.string())),
        pa.field("seed_height", pa.int32()),
        pa.field("seed_width", pa.int32()),
        pa.field("seed", pa.binary()),
    ]
)
"""Maps of another program, columns of a row for each image. `seed`: float16 bytes of the maps (K, seed_height,
seed_width) of the K classes that `seed_classes` names, in [0, 1], NaN where unknown."""

SALIENCY = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("saliency", pa.binary()),
    ]
)
"""`height, width`: working size. `saliency`: 8-bit PNG, 255 is salient."""

MASKS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("class_ids", pa.list_(pa.uint8())),
        pa.field("mask", pa.binary()),
        pa.field("confidence", pa.binary()),
        pa.field("areas", pa.list_(pa.float32())),
        pa.field("mean_confidences", pa.list_(pa.float32())),
        pa.field("walk_mask", pa.binary()),
        pa.field("predicted_iou", pa.float32()),
        pa.field("walk_alpha", pa.float32()),
        pa.field("walk_steps", pa.int32()),
    ]
)
"""One row for each image, at its original size. `class_ids`: the classes in the mask, with background and without
ignore; `areas` (share of the image) and `mean_confidences` (0..1) have the same order. `mask`, `confidence`: 8-bit PNG.
`walk_mask`: the mask before refinement, null if nothing was refined. `predicted_iou`: an estimate of the walked mask's
IoU that needs no true mask. `walk_alpha`, `walk_steps`: exponent of the background and number of steps that the mask
was made with; null without labels, and of masks that no walk has made."""

SETTINGS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("class_ids", pa.list_(pa.uint8())),
        pa.field("feature_separations", pa.list_(pa.float32())),
        pa.field("colour_separations", pa.list_(pa.float32())),
        pa.field("hits", pa.binary()),
        pa.field("predicted", pa.binary()),
        pa.field("truth_ids", pa.list_(pa.uint8())),
        pa.field("truth_pixels", pa.list_(pa.int64())),
        pa.field("cam", pa.binary()),
        pa.field("cam_height", pa.int32()),
        pa.field("cam_width", pa.int32()),
    ]
)
"""One row for each image, with the scores of S settings of the walk in their order. `class_ids`: the K labels. `hits`,
`predicted`: int32 bytes of (S, 1 + K): how many pixels are correctly, and how many at all, assigned to background and
each label. `truth_ids`, `truth_pixels`: the classes of the true mask and their pixels. These four are null without a
true mask. `cam`: as in seeds, so that the next scoring needn't compute it."""

CELLS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("class_ids", pa.list_(pa.uint8())),
        pa.field("cam", pa.binary()),
        pa.field("cam_height", pa.int32()),
        pa.field("cam_width", pa.int32()),
        pa.field("grid_height", pa.int32()),
        pa.field("grid_width", pa.int32()),
        pa.field("features", pa.binary()),
        pa.field("colours", pa.binary()),
        pa.field("affinity", pa.binary()),
    ]
)
"""One row for each image whose walks are searched. `cam`: as in seeds. Of the cells of the grid (grid_height,
grid_width): `features`, float16 bytes of (D, h, w); `colours`, float32 bytes of (3, h, w); `affinity`, float32 bytes of
(num_offsets, h, w); all null where there is no label."""

GATES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("walk_before", "walk_after", "refined_before", "refined_after")),
    ]
)
"""One row an image of a gate's sample: truth-free scores before and after the walk (objective), and before and after
the refinement of its mask (class consistency). Null without labels, and where nothing is judged."""

EXPORTS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("number", pa.int64()),
        pa.field("folder", pa.string()),
        pa.field("split", pa.string()),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("image_uri", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("items", pa.list_(pa.struct([pa.field("kind", pa.string()), pa.field("data", pa.binary())]))),
    ]
)
"""One row for each exported image. `number`: its position in the manifest, from 1. `folder`: its split as a name of
files. `height, width`: the mask's. `items`: its part of the files that describe many images, such as COCO's one JSON;
each format has its own kinds."""

REVIEW = pa.schema(
    [
        pa.field("rank", pa.int32()),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_uri", pa.string()),
        pa.field("gain", pa.float64()),
        pa.field("predicted_iou", pa.float32()),
        pa.field("class_names", pa.list_(pa.string())),
        pa.field("areas", pa.list_(pa.float32())),
        pa.field("parts", pa.list_(pa.float64())),
        pa.field("reason", pa.string()),
    ]
)
"""One row for each mask to review, in the order of `rank`, from 1. `class_names`: the classes in the mask or among the
labels, without background; `areas` (share of the image) and `parts` have the same order. `gain`: the sum of `parts`,
each class's part of the expected gain."""

QUARANTINE = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field(ROW_DIGEST, pa.string()),
    ]
)
"""Rows that could not be processed, and why. Masks + quarantined = manifest rows."""
