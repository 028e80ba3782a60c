"""Runs a function on many parts as tasks on the cluster, or, where there is little to do, in this process."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from raypipe import storage
from raypipe.cluster.connect import is_connected
from raypipe.cluster.health import sick_nodes, without_nodes
from raypipe.data.rows import Rows
from raypipe.screen.worker import in_worker

MOST_RUNNING = 32
"""Tasks at a time: each holds a part's rows."""

FEW_ROWS = 4_000
"""Rows that the driver reads itself: a task would take longer to start."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Tasks:
    """Tasks that have been started and whose results are asked for later."""

    def __init__(self, *, inline: bool, cpus: int = 0) -> None:
        """Prepares tasks.

        Args:
            inline: runs them in this process, each when it is submitted; so it is without Ray, too.
            cpus: of a task. Most wait for storage; and with CPUs of their own they would wait for the pools that hold
                them all.
        """
        self.cpus = cpus
        self.inline = inline or not is_connected()
        self.selector = {} if self.inline else without_nodes(sick_nodes())
        self.started: deque[Any] = deque()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Starts a task, or runs it."""
        if self.inline:
            self.started.append(function(*arguments))
            return
        import ray

        options: dict[str, Any] = {
            "num_cpus": self.cpus,
            "scheduling_strategy": "SPREAD",
            "retry_exceptions": [OSError],
        }
        options["label_selector"] = self.selector
        self.started.append(ray.remote(_call).options(**options).remote(function, *arguments))

    def results(self, *, most_running: int = 0) -> Iterator[Any]:
        """Waits for tasks, the first first, until no more than so many run; yields their results."""
        while len(self.started) > (0 if self.inline else most_running):
            first = self.started.popleft()
            if not self.inline:
                import ray

                first = ray.get(first)
            yield first


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Ray takes no `partial`; and tries a task again at once, when storage is still away."""
    in_worker()
    with storage.patience():
        return function(*arguments)


def are_few(rows: Rows) -> bool:
    """Whether the driver reads the rows itself."""
    return rows.most <= FEW_ROWS


def in_tasks(
    function: Callable[[Item], Result], items: Iterable[Item], *, inline: bool, cpus: int = 0
) -> Iterator[Result]:
    """The results of a function, in the order of its arguments; some tasks run at a time."""
    tasks = Tasks(inline=inline, cpus=cpus)
    for item in items:
        tasks.submit(function, item)
        yield from tasks.results(most_running=MOST_RUNNING)
    yield from tasks.results()
