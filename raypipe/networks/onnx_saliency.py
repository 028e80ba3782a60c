"""Any saliency network as an ONNX model, through onnxruntime, which is an extra: `pip install -e '.[onnx]'`."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class OnnxSaliency:
    """Runs a model on the CPU.

    Args:
        data: the model. Its first input takes (1, 3, H, W), normalised by ImageNet's mean and deviation; its first
            output is the saliency in [0, 1], of one channel.
        source: where it comes from, for messages.

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
        except Exception as error:  # onnxruntime's errors have no common base but this
            raise ValueError(f"{source} can't be read as an ONNX model: {error}") from error
        self.input = self.session.get_inputs()[0]

    @property
    def side(self) -> int | None:
        """Height of the input that the model is made for; None if it takes any."""
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
                f"{self.source}: the first output has shape {output.shape} and values from {output.min():.3g} to "
                f"{output.max():.3g}; needed is one map in [0, 1]: export the model with its sigmoid"
            )
        return torch.from_numpy(output.reshape(1, 1, height, width)).float()
