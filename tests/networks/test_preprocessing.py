import json

import numpy as np
import pytest
import torch

from raypipe.networks import Preprocessing
from raypipe.networks.preprocessing import CAFFE, IMAGENET, PREPROCESSINGS, TENSORFLOW, preprocessing_of


def test_normalize_by_hand() -> None:
    pixels = torch.tensor([255, 51, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
    torch.testing.assert_close(TENSORFLOW.normalize(pixels).flatten(), torch.tensor([1.0, -0.6, -1.0]))
    expected = torch.tensor([(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(IMAGENET.normalize(pixels).flatten(), expected)


def test_numbers_are_those_of_bytes() -> None:
    pixels = torch.tensor([0, 128, 192], dtype=torch.uint8).reshape(1, 3, 1, 1)
    alike, one_each = preprocessing_of((128.0, 256.0)), preprocessing_of(((10.0, 28.0, 92.0), 10.0))
    assert alike.normalize(pixels).flatten().tolist() == [-0.5, 0.0, 0.25]
    assert one_each.normalize(pixels).flatten().tolist() == [-1.0, 10.0, 10.0]
    assert preprocessing_of("caffe") == CAFFE


def test_convention_bgr_networks_get_blue_first() -> None:
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(1, 3, 1, 1)
    expected = torch.tensor([30 - 104.008, 20 - 116.669, 10 - 122.675])
    torch.testing.assert_close(CAFFE.normalize(pixels).flatten(), expected)


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_fill_is_the_colour_of_zero_padding(name: str) -> None:
    preprocessing = PREPROCESSINGS[name]
    colour = torch.from_numpy(preprocessing.fill).reshape(1, 3, 1, 1)
    half_a_level = 0.5 * preprocessing.scale / min(preprocessing.std)
    assert preprocessing.normalize(colour).abs().max() <= half_a_level * 1.001


def test_fill_is_rgb() -> None:
    np.testing.assert_array_equal(CAFFE.fill, [123, 117, 104])


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_dict_round_trip_through_json(name: str) -> None:
    preprocessing = PREPROCESSINGS[name]
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channel_order": "hsv"}, "hsv"),
        ({"scale": 0.0}, "positive"),
        ({"std": (1.0, 0.0, 1.0)}, "positive"),
    ],
)
def test_refuses_impossible_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**values)  # type: ignore[arg-type]


def test_from_dict_refuses_two_means() -> None:
    with pytest.raises(ValueError, match="three values"):
        Preprocessing.from_dict(IMAGENET.to_dict() | {"mean": [0.5, 0.5]})
