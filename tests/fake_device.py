"""A device that isn't the CPU and needs no card: torch's "meta", but its tensors hold values.

    with fake_device() as waits:
        stage.setup(DEVICE.type)
        ...
    waits  # how often, and for what, a card would have been waited for

A tensor of the device is a wrapper that says "meta" of itself and holds a tensor of the CPU, with which all is computed
by torch's own operators. As with a card, an operator that gets tensors of both kinds raises, unless the CPU's has no
dimension, and so does `numpy()`. Code that asks for a tensor's device takes its way for accelerators.

What was tried. Plain "meta" tensors find a mixture, too, but hold no values, so a stage ends where it looks at one. A
"cuda" device in its wrapper makes autograd and Triton ask for a driver. A registered backend ("privateuseone") must be
there before the process's first backward pass, and stays.

What this doesn't prove: the order of work on streams and copies that overtake it, autocast (there is none for "meta",
so precision is float32), Triton's kernels (the walk takes its sparse matrices), cuDNN's and cuBLAS's operators, their
determinism and memory, and optimisers' `foreach` forms, which take tensors of torch's own class only.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive", "equal", "bincount"}
"""Operators whose result has a size, or is a number, that the host must know: it waits for the device."""

_INDEXING = {"index", "index_put", "index_put_"}


class DeviceError(RuntimeError):
    """An operator got tensors of two devices."""


class DeviceTensor(Tensor):
    """A tensor of the device, which holds its values on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "DeviceTensor":
        strides = held.stride() if held.layout == torch.strided else None
        return Tensor._make_wrapper_subclass(cls, held.shape, strides=strides, dtype=held.dtype, device=DEVICE)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.held})"

    def numpy(self, **_: Any) -> Any:
        raise TypeError("a tensor of the device has no numpy array: copy it to the CPU first")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: "DeviceTensor") -> None:
        self.held = new.held
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a tensor of the fake device, outside of `fake_device`")


@contextmanager
def fake_device() -> Iterator[Counter[str]]:
    """Makes DEVICE compute; counts what a card would have been waited for."""
    computing = _Computing()
    with _Literals(computing.waits), computing:
        yield computing.waits


class _Literals(TorchFunctionMode):
    """Makes tensors of plain numbers on the CPU and copies them, where torch would make empty ones for "meta"."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _is_device(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], DeviceTensor):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            literal = [isinstance(i, list | range | np.ndarray) for i in index]
            if any(literal):
                self.waits["a list as index"] += 1
            copied = tuple(
                torch.as_tensor(i).to(DEVICE) if is_one else i for i, is_one in zip(index, literal, strict=True)
            )
            args = (args[0], copied, *args[2:])
        return func(*args, **kwargs)


class _Computing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._can_decompose():  # in inference mode, torch leaves it to us to take what it is made of
            with self:
                return func.decompose(*args, **kwargs)
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        wanted = kwargs.get("device")
        if any(tensor.is_meta and not isinstance(tensor, DeviceTensor) for tensor in tensors):
            raise DeviceError(f'{func} got a tensor of torch\'s own "meta", which has no values')
        if not ours and not _is_device(wanted):
            return func(*args, **kwargs)
        on_device = isinstance(args[0], DeviceTensor) if name == "copy_" else wanted is None or _is_device(wanted)
        if name in ("_to_copy", "copy_"):
            self._count_copy(name, args, kwargs, to_device=on_device)
        elif ours:
            self._check(func, name, args, kwargs)
            self._count_waits(name, args)
        if wanted is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        known = {id(tensor.held): tensor for tensor in ours}

        def wrap(out: Any) -> Any:
            if not on_device or not isinstance(out, Tensor):
                return out
            with torch.inference_mode(out.is_inference()):  # a view of weights is none
                wrapper = known[id(out)] if id(out) in known else DeviceTensor(out)
            assert wrapper.shape == out.shape, f"{func} changed a tensor's shape in place"
            return wrapper

        return tree_map(wrap, result)

    def _count_copy(self, name: str, args: Any, kwargs: Any, *, to_device: bool) -> None:
        source = args[0] if name == "_to_copy" else args[1]
        from_device = isinstance(source, DeviceTensor)
        does_not_wait = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if from_device and not to_device:
            self.waits["a copy to the CPU"] += 1
        elif to_device and not from_device and not does_not_wait and (name == "_to_copy" or source.dim()):
            self.waits["a copy to the device"] += 1

    def _count_waits(self, name: str, args: Any) -> None:
        if name in WAITING:
            self.waits[name] += 1
        if name in _INDEXING:
            # One number behind a mask is filled in without its places being counted.
            by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
            if by_mask and not (name != "index" and args[2].numel() == 1):
                self.waits["a mask as index"] += 1
            if any(index is not None and not isinstance(index, DeviceTensor) for index in args[1]):
                self.waits["a copy to the device"] += 1

    def _check(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        """Raises where a card would: tensors of the CPU may have no dimension, be no part of a list and not change."""
        for argument, value in [*zip(func._schema.arguments, args, strict=False), *_named(func, kwargs)]:
            if name in _INDEXING and argument.name == "indices":
                continue  # may lie on the CPU, from where they are copied
            written = argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tree_leaves(value):
                if not isinstance(tensor, Tensor) or isinstance(tensor, DeviceTensor):
                    continue
                if tensor.dim() or written or isinstance(value, list | tuple):
                    raise DeviceError(f"{func} got `{argument.name}` {tuple(tensor.shape)} on the CPU, others not")


def _named(func: Any, kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(argument, kwargs[argument.name]) for argument in func._schema.arguments if argument.name in kwargs]


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device) == DEVICE


def _held(value: Any) -> Any:
    return value.held if isinstance(value, DeviceTensor) else value
