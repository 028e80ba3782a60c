from typing import Any

import pytest
import torch
from saliency_models import onnx_model

from raypipe.networks.onnx_saliency import CUDA, OnnxSaliency

onnxruntime = pytest.importorskip("onnxruntime")


def network(*shape: int | str, **options: Any) -> OnnxSaliency:
    return OnnxSaliency(onnx_model(shape, **options) if shape else onnx_model(**options), source="a")


def redness(x: torch.Tensor) -> torch.Tensor:
    return (x[:, :1] - x[:, 2:]).sigmoid()


def test_a_models_first_output_is_the_saliency() -> None:
    x = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(network()(x), redness(x))


def test_the_model_says_its_size_and_whether_images_may_share_a_pass() -> None:
    joint, alone = network("n", 3, 32, 48), network(1, 3, 24, 16)
    assert (joint.height, joint.width, joint.is_joint) == (32, 48, True)
    assert (alone.height, alone.width, alone.is_joint) == (24, 16, False)


def test_a_pass_of_several_images_gives_each_its_map() -> None:
    x = torch.randn(3, 3, 32, 48)
    torch.testing.assert_close(network()(x), redness(x))


def test_half_precision_goes_in_and_float32_comes_out() -> None:
    x = torch.randn(1, 3, 32, 48)
    saliency = network(half=True)(x)
    torch.testing.assert_close(saliency, redness(x), rtol=0, atol=2e-3)


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a: expected one map in .* export the network with its sigmoid"):
        network(last="Identity")(10 * torch.randn(1, 3, 32, 48))


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="values from nan to nan"):
        network()(torch.full((1, 3, 32, 48), torch.nan))


def test_a_map_of_another_shape_is_refused() -> None:
    model = network()
    model.session = Thrice(model.session)
    with pytest.raises(ValueError, match=r"got map of shape \(1, 3, 32, 48\) for 1"):
        model(torch.zeros(1, 3, 32, 48))


class Thrice:
    """A session whose maps have three channels."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, *arguments: Any) -> list[Any]:
        return [self.session.run(*arguments)[0].repeat(3, axis=1)]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, "height", "width"), r"takes images of any size .* --input_name image --input_shape 1,3,320,320"),
        ((1, 3, 32, "width"), "takes images of any size"),
        ((4, 3, 32, 48), "takes 4 images at once: export it for one"),
    ],
)
def test_sizes_that_a_model_has_to_fix(shape: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(*shape)


def test_channels_last_are_refused() -> None:
    model = network()
    model.session = Described([(1, 32, 48, 3)])
    with pytest.raises(ValueError, match=r"expected one input .* got x0: tensor\(float\) of shape .* channels first"):
        model._read_input()


def test_a_second_input_is_refused() -> None:
    model = network()
    model.session = Described([(1, 3, 32, 48), (1, 2)])
    with pytest.raises(ValueError, match=r"x1: tensor\(float\) .* images as its only input"):
        model._read_input()


class Described:
    """A session that only says what its inputs are."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        self.shapes = shapes

    def get_inputs(self) -> list[Any]:
        from types import SimpleNamespace

        return [
            SimpleNamespace(name=f"x{index}", type="tensor(float)", shape=list(shape))
            for index, shape in enumerate(self.shapes)
        ]


def test_damaged_models_are_refused() -> None:
    with pytest.raises(ValueError, match="can't be read as an ONNX model"):
        OnnxSaliency(b"no model", source="a")


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime is made for GPUs")
def test_a_gpu_that_onnxruntime_cannot_use_is_refused() -> None:
    with pytest.raises(ValueError, match=r"it has \w*\): install onnxruntime-gpu .*cluster.gpus_per_actor=0"):
        OnnxSaliency(onnx_model(), source="a", device="cuda")


def test_memory_that_runs_out_is_torchs_error() -> None:
    class Full:
        def run(self, *_: Any) -> list[Any]:
            raise onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException(
                "Failed to allocate memory for requested buffer of size 1073741824"
            )

    model = network()
    model.session = Full()
    with pytest.raises(torch.OutOfMemoryError, match="requested buffer"):
        model(torch.zeros(1, 3, 32, 48))
