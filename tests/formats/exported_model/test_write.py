import io
import json
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raypipe.formats.exported_model import write
from raypipe.formats.exported_model.packed import smallest_side
from raypipe.formats.exported_model.write import FORMATS, METADATA, Model, find_model_format, largest_difference
from raypipe.networks import Segmenter, build_segmenter, network_input

needs_onnx = pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra onnx")
ENDINGS = [".pt2", pytest.param(".onnx", marks=needs_onnx)]
NETWORKS = {"lraspp": "mobilenet_v2", "largefov": "tiny"}


def build(head: str = "largefov", seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return build_segmenter(NETWORKS[head], head=head, num_classes=2).eval()


@cache
def file(ending: str, head: str = "largefov") -> bytes:
    return FORMATS[ending].write(build(head), classes=("cat", "dög"), digest="abc")


@cache
def load(ending: str, head: str = "largefov") -> Model:
    return FORMATS[ending].load(file(ending, head))


@pytest.mark.parametrize("head", NETWORKS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_any_size_gives_the_network_s_probabilities(ending: str, head: str) -> None:
    network, model = build(head), load(ending, head)
    for size in ((64, 96), (61, 83), (200, smallest_side(network)), (64, 64), (33, 33)):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
        with torch.inference_mode():
            grid = network(x).softmax(dim=1)
        found = model(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        expected = F.interpolate(grid, scale_factor=8, mode="bilinear")[..., : size[0], : size[1]]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_batch_has_any_number_of_images(ending: str) -> None:
    model = load(ending)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 40, 48), dtype=np.uint8))
    together = model(images)
    assert together.shape == (3, 3, 40, 48)
    torch.testing.assert_close(together[1:2], model(images[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ending", ENDINGS)
def test_differences_are_seen(ending: str) -> None:
    images = [np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)]
    model = load(ending)
    assert largest_difference(model, build(), images) < 1e-5
    assert largest_difference(model, build(seed=1), images) > 1e-3


def test_pt2_says_what_its_channels_are() -> None:
    extra = {METADATA: ""}
    torch.export.load(io.BytesIO(file(".pt2")), extra_files=extra)
    metadata = json.loads(extra[METADATA])
    assert metadata["classes"] == ["background", "cat", "dög"]
    assert metadata["checkpoint"] == "abc"


@needs_onnx
def test_onnx_says_what_its_channels_and_axes_are() -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(file(".onnx"), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["background", "cat", "dög"]
    assert metadata["checkpoint"] == "abc"
    ((images,), (probabilities,)) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape, images.type) == ("images", ["batch", 3, "height", "width"], "tensor(uint8)")
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["batch", 3, "height", "width"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_path_of_this_machine_is_in_the_file(ending: str) -> None:
    assert b"/raypipe/" not in file(ending)
    assert b"site-packages" not in file(ending)


@pytest.mark.parametrize("name", ["model.ts", "model", "s3://bucket/pt2"])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in \.pt2 or \.onnx"):
        find_model_format(name)


def test_onnx_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"onnx, onnxscript, onnxruntime: run pip install -e '\.\[onnx\]'"):
        find_model_format("s3://bucket/model.onnx")
    assert find_model_format("model.pt2") is FORMATS[".pt2"]
