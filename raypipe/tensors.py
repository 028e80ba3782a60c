"""What PyTorch saved, from bytes that anyone may have made: tensors, numbers and texts, never code."""

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
"""What torch's reader was seen to raise on damaged bytes."""


def load_tensors(data: bytes, *, source: str) -> object:
    """The content of a file of `torch.save`, on the CPU.

    Args:
        data: the file's content.
        source: where it comes from, for the message.

    Raises:
        ValueError: if it is damaged, or holds what only running code could make.
    """
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _ERRORS as error:
        # torch's own message would advise to let the code run.
        raise ValueError(
            f"{source} can't be read as PyTorch weights: it is damaged, or holds more than tensors, which is refused "
            f"because it could run code. Save module.state_dict() again with torch.save. ({type(error).__name__})"
        ) from error
