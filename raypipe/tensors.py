"""Reads files of tensors that anyone may have changed, safetensors or what `torch.save` wrote: never code."""

import io
import pickle
import struct

import torch

_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    struct.error,
)
"""Errors that torch's reader has been observed to raise on damaged bytes."""


def load_tensors(data: bytes, *, source: str) -> object:
    """Returns the content of a file of safetensors, or of one that `torch.save` wrote, on the CPU.

    Args:
        data: the file's content.
        source: where the data come from, for the message.

    Raises:
        ValueError: the file is damaged, or holds objects that only running code could make.
    """
    if data[8:9] == b"{":  # after 8 bytes of length comes the header, which is JSON
        return _load_safetensors(data, source)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _ERRORS as error:
        # torch's own message advises to let the code run, so it isn't shown.
        raise ValueError(
            f"{source} can't be read as PyTorch weights: it is damaged, or holds more than tensors, which is refused "
            f"because it could run code. Save module.state_dict() again with torch.save. ({type(error).__name__})"
        ) from error


def _load_safetensors(data: bytes, source: str) -> object:
    import safetensors.torch  # where no such file is read, it may be missing

    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{source} can't be read as safetensors: {error}. Copy or download it again") from error
