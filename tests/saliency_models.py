"""A saliency network as an ONNX model; it needs the packages of the extra `onnx`."""

import numpy as np
import pytest

SHAPE = ("batch", 3, 32, 48)


def onnx_model(shape: tuple[int | str, ...] = SHAPE, *, last: str = "Sigmoid", half: bool = False) -> bytes:
    """A network that takes what is red for salient: sigmoid(red - blue) of each pixel.

    Args:
        shape: of its input.
        last: what comes after the convolution; "Identity" gives logits.
        half: in float16 from the input to the output.
    """
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    kernel = np.array([1, 0, -1], np.float16 if half else np.float32).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["logits"]),
        helper.make_node(last, ["logits"], ["map"]),
    ]
    outputs = [helper.make_tensor_value_info(name, kind, [shape[0], 1, *shape[2:]]) for name in ("map", "logits")]
    inputs = [helper.make_tensor_value_info("image", kind, shape)]
    graph = helper.make_graph(nodes, "redness", inputs, outputs, [numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())
