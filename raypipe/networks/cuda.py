"""Arranges a process for a card: the same bytes in every run, float32 that is float32, memory that doesn't fragment."""

import os

import torch
from torch import Tensor

BEFORE_CUDA = {
    # cuBLAS gives the same bits in every run only with a workspace of its own.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Images of many sizes would leave memory in pieces that no other size fits into.
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}
"""Environment variables that CUDA and torch's allocator read when they start."""


def arrange_cuda() -> None:
    """Sets what a process that computes on a card needs; call it before CUDA starts.

    Operators without a deterministic way warn: an error would end a run for what may be one bit. What the environment
    says already stays. Neither cuDNN nor cuBLAS may round to TF32, so that `precision: fp32` and blocks that need
    float32 get it; bfloat16 is the fast way.
    """
    for name, value in BEFORE_CUDA.items():
        os.environ.setdefault(name, value)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # Nothing here reads memory before it is written; else a kernel more would fill most operators' outputs first.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor of the CPU to a device, for which nothing waits: a card copies from pinned memory by itself."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
