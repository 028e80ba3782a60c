import io
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raypipe.formats.torchscript.write import METADATA, largest_difference, to_torchscript
from raypipe.networks import Segmenter, build_segmenter, network_input


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter("mobilenet_v2", head="lraspp", num_classes=2).eval()


@pytest.fixture(scope="module")
def model(network: Segmenter) -> bytes:
    return to_torchscript(network, classes=("cat", "dog"), digest="abc")


def test_any_size_gives_the_network_s_probabilities(network: Segmenter, model: bytes) -> None:
    loaded = torch.jit.load(io.BytesIO(model))
    for size in ((64, 96), (61, 83), (9, 200)):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
        with torch.inference_mode():
            grid = network(x).softmax(dim=1)
            found = loaded(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        expected = F.interpolate(grid, scale_factor=8, mode="bilinear")[..., : size[0], : size[1]]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_differences_are_seen(network: Segmenter, model: bytes) -> None:
    images = [np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)]
    assert largest_difference(model, network, images) < 1e-5
    torch.manual_seed(1)
    other = build_segmenter("mobilenet_v2", head="lraspp", num_classes=2).eval()
    assert largest_difference(model, other, images) > 1e-3


def test_says_what_its_channels_are(model: bytes) -> None:
    files = {METADATA: ""}
    torch.jit.load(io.BytesIO(model), _extra_files=files)
    metadata = json.loads(files[METADATA])
    assert metadata["classes"] == ["background", "cat", "dog"]
    assert metadata["checkpoint"] == "abc"
