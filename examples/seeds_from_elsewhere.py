"""Maps from elsewhere take the classifier's place: here an annotator's clicks, one an object and one the background.

    python examples/seeds_from_elsewhere.py [CONFIG]

`maps_of` is the part to replace: by text prompts, another model's heat maps, or whatever says roughly where things are.
The affinity, the walk and all that follows are those of the finished run, on its images of the split `val`.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

import raypipe
from raypipe.ops import confusion_matrix, mean_iou
from raypipe.reports.pictures import draw_cam

SIDE = 64
"""Cells a side of the maps: any number will do, they are fitted to the image."""


def clicks(truth: NDArray[np.uint8], class_id: int) -> NDArray[np.bool_]:
    """Where an annotator clicks for a class (SIDE, SIDE): a dot at its innermost place, by the true mask."""
    depth = distance_transform_edt(np.pad(truth == class_id, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    rows, columns = np.indices((SIDE, SIDE))
    centre = (row * SIDE / truth.shape[0], column * SIDE / truth.shape[1])
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= 3**2


def maps_of(truth: NDArray[np.uint8], class_ids: list[int]) -> NDArray[np.float32]:
    """Maps (K, SIDE, SIDE) of an image's K classes: 1 "here", 0 "not here", NaN where nobody looked."""
    here = [clicks(truth, class_id) for class_id in class_ids]
    seen = np.any([*here, clicks(truth, 0)], axis=0)
    return np.where(seen, np.array(here, np.float32), np.nan)


def read_truth(row: dict[str, str]) -> NDArray[np.uint8]:
    """The true mask (H, W) of a manifest's row: here it stands for the annotator, and measures what comes out."""
    return np.asarray(Image.open(row["mask_uri"]))


config = sys.argv[1] if len(sys.argv) > 1 else "demo/run/config.yaml"
run = raypipe.open_run(config)
rows = [row for row in run.manifest.table.to_pylist() if row["split"] == "val"]
Path("clicks").mkdir(exist_ok=True)
for number, row in enumerate(rows):
    maps = maps_of(read_truth(row), [run.classes.index(name) + 1 for name in row["labels"]])
    np.savez(f"clicks/{number}.npz", image_id=row["image_id"], classes=row["labels"], maps=maps)

raypipe_command = str(Path(sys.executable).with_name("raypipe"))
overrides = [
    "checkpoints.seeds=clicks-seeds",
    f"checkpoints.affinity={run.finished.affinity.uri}",
    "splits.masks=[val]",
    "out=clicks-run",
    "refinement.gate=off",
    "walk.num_steps=64",  # from a dot it is a longer way than from a map
]
subprocess.run([raypipe_command, "import", "seeds", "clicks", run.config.manifest, "clicks-seeds"], check=True)
subprocess.run([raypipe_command, "masks", config, *overrides], check=True)

clicked = raypipe.open_run(config, *overrides).masks
confusions = {
    name: sum(
        confusion_matrix(read_truth(row), masks[row["image_id"]].array, num_classes=len(run.classes) + 1)
        for row in rows
    )
    for name, masks in (("the classifier's maps", run.masks), ("clicks", clicked))
}
for name, confusion in confusions.items():
    print(f"{name}: {100 * mean_iou(confusion):.1f} mIoU on {len(rows)} images")

pictures = []
for row in rows[:4]:
    mask = clicked[row["image_id"]]
    pixels = clicked.image(mask.image_id)
    with np.load(f"clicks/{rows.index(row)}.npz") as stored:
        dots = np.nan_to_num(stored["maps"])
    ids = tuple(run.classes.index(name) + 1 for name in row["labels"])
    drawn = [pixels, draw_cam(pixels, dots, ids), mask.draw(pixels), run.masks[mask.image_id].draw(pixels)]
    pictures.append(np.hstack([np.asarray(Image.fromarray(each).resize((192, 144))) for each in drawn]))
Image.fromarray(np.vstack(pictures)).save("clicks.png")
print("clicks.png: photograph, clicks, their mask, the mask of the classifier's maps")
