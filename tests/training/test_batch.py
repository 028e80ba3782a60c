import numpy as np
import pyarrow as pa
import torch

from raypipe.ops.jitter import ColourChange, change_colours
from raypipe.stages.crops import LoadCrops
from raypipe.training.batch import to_batch

COLOURS = LoadCrops.writes.field("colours").type


def test_targets_follow_one_another_and_unreadable_crops_keep_their_place() -> None:
    crop = np.full((32, 32, 3), 7, np.uint8).tobytes()
    rows = pa.table(
        {
            "crop": pa.array([crop, None], pa.binary()),
            "target": pa.array([bytes([0, 1, 0, 9, 8, 7, 6]), None], pa.binary()),
            "colours": pa.array([None, None], COLOURS),
            "error_stage": pa.array([None, "LoadClassifierCrops"], pa.string()),
        }
    )
    batch = to_batch(rows, {"labels": (3,), "saliency": (2, 2)}, crop_size=32)
    assert batch.crops.shape == (2, 3, 32, 32)
    assert (batch.crops[0] == 7).all()
    assert not batch.crops[1].any()
    assert batch.valid.tolist() == [True, False]
    assert batch.targets["labels"].tolist() == [[0, 1, 0], [255, 255, 255]]
    assert batch.targets["saliency"].tolist() == [[[9, 8], [7, 6]], [[255, 255], [255, 255]]]


def test_colours_that_the_loader_has_left_are_changed_on_the_device() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    change = ColourChange(1.2, 0.7, 1.1, 0.05, [3, 0, 2, 1], [4, 5, 20, 10])
    rows = pa.table(
        {
            "crop": pa.array([crop.tobytes() for crop in crops], pa.binary()),
            "target": pa.array([b"a", b"b"], pa.binary()),
            "colours": pa.array([change._asdict(), None], COLOURS),
            "error_stage": pa.nulls(2, pa.string()),
        }
    )
    batch = to_batch(rows, {"labels": (1,)}, crop_size=32).to(torch.device("cpu"))
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
    assert torch.equal(batch.crops[0], change_colours(pixels[0], change))
    assert torch.equal(batch.crops[1], pixels[1])
