"""Runs a saliency network that is given as an ONNX model; it needs the extra `onnx` (onnxruntime)."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CUDA = "CUDAExecutionProvider"

_CUDA_OPTIONS = {
    "use_tf32": "0",  # else its maps would differ from those of a CPU
    "cudnn_conv_algo_search": "HEURISTIC",  # else the fastest algorithm of the moment rounds as it likes
    "arena_extend_strategy": "kSameAsRequested",  # torch may need memory of the same card
}
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxSaliency:
    """A saliency network that onnxruntime runs.

    Args:
        data: content of the model's file. Its one input takes (B, 3, height, width), normalised; its first output is
            one channel of saliency in [0, 1], and further ones aren't computed.
        source: path or URI of the model, for messages.
        device: "cpu", on which it computes in one thread, as torch's networks do, or "cuda".

    Raises:
        ValueError: onnxruntime isn't installed or can't use the device, the model can't be read, or its input is
            another one.

    Attributes:
        height: of the model's input, in pixels.
        width: likewise.
        is_joint: images may share a pass: the model doesn't fix their number.
    """

    def __init__(self, data: bytes, *, source: str, device: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(
                "saliency.weights needs onnxruntime: run pip install -e '.[onnx]' in raypipe's clone"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.use_deterministic_compute = True
        options.enable_mem_pattern = False  # at 1024 x 1024 it takes twice the memory, and isn't faster
        providers: list[Any] = [(CUDA, _CUDA_OPTIONS)] if device == "cuda" else []
        self.source = source
        try:
            self.session: Any = onnxruntime.InferenceSession(
                data, options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no other common base
            raise ValueError(f"{source} can't be read as an ONNX model: {error}") from error
        if providers and CUDA not in self.session.get_providers():  # it only warns, and computes on the CPU
            raise ValueError(
                f"onnxruntime can't use this node's GPU (it has {', '.join(self.session.get_providers())}): install "
                "onnxruntime-gpu for its CUDA, or set cluster.gpus_per_actor=0"
            )
        self._read_input()

    def _read_input(self) -> None:
        inputs = self.session.get_inputs()
        shape, kind = inputs[0].shape, inputs[0].type
        if len(inputs) > 1 or kind not in _TYPES or len(shape) != 4 or shape[1] != 3:
            given = ", ".join(f"{each.name}: {each.type} of shape {each.shape}" for each in inputs)
            raise ValueError(
                f"{self.source}: expected one input of floats of shape [batch, 3, height, width], got {given}: export "
                "the network with images as its only input, channels first"
            )
        batch, _, height, width = shape
        if any(not isinstance(side, int) for side in (height, width)):
            raise ValueError(
                f"{self.source} takes images of any size (input {inputs[0].name} of shape {shape}): fix the one that "
                "it was trained on, such as with python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name "
                f"{inputs[0].name} --input_shape 1,3,320,320 MODEL.onnx FIXED.onnx"
            )
        if isinstance(batch, int) and batch != 1:
            raise ValueError(f"{self.source} takes {batch} images at once: export it for one, or for any number")
        self.height, self.width, self.is_joint = height, width, not isinstance(batch, int)
        self.input, self.type = inputs[0].name, _TYPES[kind]
        self.output = self.session.get_outputs()[0].name

    def __call__(self, x: Float[Tensor, "B 3 height width"]) -> Float[Tensor, "B 1 h w"]:
        """Return the saliency of normalised images.

        Raises:
            ValueError: the output isn't a saliency map an image.
            torch.OutOfMemoryError: the images don't fit into the memory.
        """
        try:
            (output,) = self.session.run([self.output], {self.input: x.cpu().numpy().astype(self.type)})
        except Exception as error:
            if "Failed to allocate memory" in str(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        height, width = output.shape[-2:] if output.ndim > 1 else (0, 0)
        if output.size != len(x) * height * width or not (output.min() >= -1e-4 and output.max() <= 1 + 1e-4):
            raise ValueError(
                f"{self.source}: expected one map in [0, 1] an image as first output, got {self.output} of shape "
                f"{output.shape} for {len(x)} and values from {output.min():.3g} to {output.max():.3g}: export the "
                "network with its sigmoid and that map as its first output"
            )
        return torch.from_numpy(output.reshape(len(x), 1, height, width)).float()


def runs_on_cuda() -> bool:
    """Return whether the onnxruntime that is installed is made for GPUs, with or without one in this machine."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return CUDA in onnxruntime.get_available_providers()
