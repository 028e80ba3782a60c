import numpy as np
import pyarrow as pa

from raypipe.training.batch import to_batch


def test_targets_follow_one_another_and_unreadable_crops_keep_their_place() -> None:
    crop = np.full((32, 32, 3), 7, np.uint8).tobytes()
    rows = pa.table(
        {
            "crop": pa.array([crop, None], pa.binary()),
            "target": pa.array([bytes([0, 1, 0, 9, 8, 7, 6]), None], pa.binary()),
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
