"""Lets Ray Data's loop pause between its turns.

It waits for tasks to have something new, but a task that holds back what nobody takes yet has something in every turn:
while a training is slower than its loaders, or a pool slower than the one before it, the loop turns without a pause. It
was seen to take half a core (benchmarks/training_scale.md), and Python's lock from the training in the same process.
"""

import time
from typing import TYPE_CHECKING

from ray.data._internal.execution.execution_callback import ExecutionCallback

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

PAUSE = 0.01
"""Seconds; a turn takes all that is ready, however much that is."""


class Calm(ExecutionCallback):
    """What `DataContext.custom_execution_callback_classes` takes; Ray Data calls it after each turn of its loop."""

    def on_execution_step(self, executor: "StreamingExecutor") -> None:  # noqa: ARG002 - Ray's signature
        """Waits."""
        time.sleep(PAUSE)
