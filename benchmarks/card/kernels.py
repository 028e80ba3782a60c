"""Counts the kernels that a card would be given."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Counted(TorchDispatchMode):
    """Counts all operators but those that only look at memory differently; autocast's casts, too."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts one and runs it; where it is made of others, as torch leaves it in inference mode, counts those."""
        with self:
            done = func.decompose(*args, **(kwargs or {}))
        if done is not NotImplemented:
            return done
        if not func.is_view and func.namespace == "aten":
            self.kernels[func.name()] += 1
        return func(*args, **(kwargs or {}))
