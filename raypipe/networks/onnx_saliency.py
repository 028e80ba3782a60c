"""Runs a saliency network that is given as an ONNX model; it needs the extra `onnx` (onnxruntime)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class OnnxSaliency:
    """A saliency network that onnxruntime runs on the CPU.

    Args:
        data: content of the model's file. The first input takes (1, 3, H, W), normalised by ImageNet's mean and
            deviation; the first output is one channel of saliency in [0, 1].
        source: path or URI of the model, for messages.

    Raises:
        ValueError: onnxruntime isn't installed, or the model can't be read.
    """

    def __init__(self, data: bytes, *, source: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(
                "saliency.source=onnx needs onnxruntime: run pip install -e '.[onnx]' in raypipe's clone"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.source = source
        try:
            self.session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no other common base
            raise ValueError(f"{source} can't be read as an ONNX model: {error}") from error
        self.input = self.session.get_inputs()[0]

    @property
    def side(self) -> int | None:
        """Height of the model's input, or None if it takes any height."""
        height = self.input.shape[2] if len(self.input.shape) == 4 else None
        return height if isinstance(height, int) else None

    def __call__(self, x: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 1 h w"]:
        """Return the saliency of a normalised image.

        Raises:
            ValueError: the output isn't a saliency map.
        """
        output = self.session.run(None, {self.input.name: x.cpu().numpy()})[0]
        height, width = output.shape[-2:]
        if output.size != height * width or not (output.min() >= -1e-4 and output.max() <= 1 + 1e-4):
            raise ValueError(
                f"{self.source}: expected one map in [0, 1] as first output, got shape {output.shape} and values from "
                f"{output.min():.3g} to {output.max():.3g}: export the model with its sigmoid"
            )
        return torch.from_numpy(output.reshape(1, 1, height, width)).float()
