"""Imports many containers: each is read by a task of its own, wherever there is a CPU."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from raypipe.cluster.connect import connect
from raypipe.cluster.machines import machine_here
from raypipe.config import Cluster
from raypipe.formats.containers import Container, Found, join_found
from raypipe.formats.draft import Draft

FEW = 32
"""Containers that threads of this process read: starting Ray would take longer."""
_THREADS = 8
_TASKS_PER_CPU = 4

Read = Callable[[Container], Found]


def read_containers(read: Read, containers: Sequence[Container], *, source: str) -> Draft:
    """Returns what is in containers, in their order.

    Args:
        read: reads one of them.
        containers: see `find_containers`.
        source: what was named, for messages.

    Raises:
        ValueError: a container can't be read, or there is no image.
    """
    return join_found(found_in(read, containers), source)


def found_in(read: Read, containers: Sequence[Container]) -> Iterator[Found]:
    """Yields what is in one container after another; some are read ahead, and the rest waits for its turn."""
    if len(containers) > FEW:
        yield from _by_tasks(read, containers)
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(read, containers)


def _by_tasks(read: Read, containers: Sequence[Container]) -> Iterator[Found]:
    connect(Cluster())
    import ray  # takes seconds

    reading = ray.put(read)
    remote = ray.remote(_read)
    limit = max(1, int(machine_here().cpus)) * _TASKS_PER_CPU
    waiting = deque(containers)
    running: deque[ray.ObjectRef[Found]] = deque()
    while waiting or running:
        while waiting and len(running) < limit:
            running.append(remote.remote(reading, waiting.popleft()))
        try:
            yield ray.get(running.popleft())
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ValueError | OSError):
                raise error.cause from None
            raise


def _read(read: Read, container: Container) -> Found:
    return read(container)
