"""What a process is told before CUDA starts; no card is needed to say it."""

import json
import os
import subprocess
import sys

import pytest
import torch

from raypipe.networks.precision import use_bf16

ARRANGED = """
import json, os, torch
from raypipe.networks.cuda import arrange_cuda
arrange_cuda()
print(json.dumps({
    "initialised": torch.cuda.is_initialized(),
    "deterministic": torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic,
    "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
    "tf32": torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32,
    "searches": torch.backends.cudnn.benchmark,
    "fills": torch.utils.deterministic.fill_uninitialized_memory,
    "cublas": os.environ["CUBLAS_WORKSPACE_CONFIG"],
    "memory": os.environ["PYTORCH_CUDA_ALLOC_CONF"],
}))
"""


@pytest.mark.parametrize("memory", ["expandable_segments:True", "max_split_size_mb:64"])
def test_a_process_is_arranged_before_cuda_starts(memory: str) -> None:
    environment = os.environ | ({} if memory.startswith("expand") else {"PYTORCH_CUDA_ALLOC_CONF": memory})
    done = subprocess.run([sys.executable, "-c", ARRANGED], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "initialised": False,
        "deterministic": True,
        "only warns": True,
        "tf32": False,
        "searches": False,
        "fills": False,
        "cublas": ":4096:8",
        "memory": memory,
    }


@pytest.mark.parametrize(
    ("native", "precision", "bf16"), [(False, "auto", False), (True, "auto", True), (False, "bf16", True)]
)
def test_emulated_bfloat16_is_taken_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str, bf16: bool
) -> None:
    """A T4 or V100 says that it supports bfloat16, by emulation."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert use_bf16(torch.device("cuda"), precision) is bf16
