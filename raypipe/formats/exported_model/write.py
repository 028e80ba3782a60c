"""Writes the segmentation network as PyTorch's `.pt2` or as `.onnx`, and runs such a file to compare it."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.formats.exported_model.packed import PackedSegmenter, export_program, model_metadata
from raypipe.networks import Segmenter

METADATA = "raypipe.json"
"""Name of the file inside a `.pt2` that says what the channels are; `.onnx` has the same keys in its own metadata."""

Model = Callable[[Tensor], Tensor]
"""From uint8 (B, 3, H, W) to float32 probabilities (B, L, H, W)."""


def to_pt2(network: Segmenter, *, classes: Sequence[str], digest: str) -> bytes:
    """Return the network as a file that `torch.export.load` reads.

    Args:
        network: in eval mode, on the CPU.
        classes: names in class-id order, without background.
        digest: the checkpoint's.
    """
    metadata = model_metadata(network, classes=classes, digest=digest)
    buffer = io.BytesIO()
    files = {METADATA: json.dumps(metadata, ensure_ascii=False)}
    torch.export.save(export_program(network), buffer, extra_files=files)
    return buffer.getvalue()


def to_onnx(network: Segmenter, *, classes: Sequence[str], digest: str) -> bytes:
    """Return the network as an ONNX model with the input `images` and the output `probabilities`; see `to_pt2`."""
    metadata = model_metadata(network, classes=classes, digest=digest)
    names: dict[str, Any] = {
        "input_names": ["images"],
        "output_names": ["probabilities"],
        "dynamic_shapes": ({0: "batch", 2: "height", 3: "width"},),
    }
    program = torch.onnx.export(export_program(network), dynamo=True, verbose=False, **names)
    assert program is not None
    for key, value in metadata.items():
        program.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for graph in (program.model.graph, *program.model.functions.values()):
        for node in graph:
            node.metadata_props.clear()  # they would tell the folders of this machine
    data: bytes = program.model_proto.SerializeToString()
    return data


def load_pt2(data: bytes) -> Model:
    """Return the model of a `.pt2` file that this process has written: loading runs what the file says."""
    return torch.export.load(io.BytesIO(data)).module()


def load_onnx(data: bytes) -> Model:
    """Return the model of an `.onnx` file, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@dataclass(frozen=True)
class ModelFormat:
    """A way to write the segmentation network, with the way to run what was written."""

    write: Callable[..., bytes]
    load: Callable[[bytes], Model]
    packages: tuple[str, ...] = ()


FORMATS = {
    ".pt2": ModelFormat(to_pt2, load_pt2),
    ".onnx": ModelFormat(to_onnx, load_onnx, packages=("onnx", "onnxscript", "onnxruntime")),
}
"""Formats by the ending of the file."""


def find_model_format(uri: str) -> ModelFormat:
    """Return the format that a file's ending asks for.

    Raises:
        ValueError: no format has this ending, or a package that it needs isn't installed.
    """
    found = next((each for ending, each in FORMATS.items() if uri.endswith(ending)), None)
    if found is None:
        raise ValueError(f"got {uri} to write the network to, expected a name that ends in {' or '.join(FORMATS)}")
    if missing := [name for name in found.packages if find_spec(name) is None]:
        raise ValueError(
            f"writing {uri} needs {', '.join(missing)}: run pip install -e '.[onnx]' in raypipe's clone, "
            "or write a .pt2 file"
        )
    return found


def largest_difference(model: Model, network: Segmenter, images: Sequence[NDArray[np.uint8]]) -> float:
    """Return how far a model's probabilities are from those of the network itself, at most, over images (H, W, 3)."""
    packed = PackedSegmenter(network).eval()
    largest = 0.0
    with torch.no_grad():
        for pixels in images:
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            largest = max(largest, (model(x) - packed(x)).abs().max().item())
    return largest
