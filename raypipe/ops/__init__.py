"""The mathematics of the papers: pure functions of tensors and arrays, one idea in each file.

The method's own functions can be had from here, such as `raypipe.ops.propagate`; `raypipe.ops.method` lists them. They
and all others are in the file of their idea, such as `raypipe.ops.pamr.pamr`.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raypipe.ops.method import *  # noqa: F403 - the names are listed there


def __getattr__(name: str) -> Any:
    """Imports what is asked for: commands use few files, and some of them import torch or SciPy."""
    if not name.startswith("_"):
        if find_spec(f"raypipe.ops.{name}"):
            return import_module(f"raypipe.ops.{name}")
        method = import_module("raypipe.ops.method")
        if name in method.__all__:
            return getattr(method, name)
    raise AttributeError(f"module 'raypipe.ops' has no attribute {name!r}")
