"""What the workers of streams tell Prometheus, through Ray: rows, rows in quarantine, seconds by stage, waits of GPUs.

Ray exports a counter `raypipe_rows` of every process as `ray_raypipe_rows_total`, with the node's address.
`infra/grafana/raypipe.json` shows them.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import pyarrow as pa

from raypipe.stages.base import Stage

ROWS = "raypipe_rows"
QUARANTINED = "raypipe_quarantined_rows"
STAGE_SECONDS = "raypipe_stage_seconds"
GPU_WAIT_SECONDS = "raypipe_gpu_wait_seconds"

METRICS: dict[str, tuple[str, str]] = {
    ROWS: (
        "stream",
        "Rows that a stream has written, those in quarantine among them; a block that is done again counts",
    ),
    QUARANTINED: ("stream", "Rows that a stream has written to its quarantine"),
    STAGE_SECONDS: ("stage", "Seconds in a stage; of a stage that runs in threads, those of all of them"),
    GPU_WAIT_SECONDS: ("pool", "Seconds in which a process that holds a GPU ran no stage on it"),
}
"""Tag and description of each counter."""


class Meter:
    """Adds up what a worker's stages take, and passes it on once a call: Ray takes some 50 us for each number."""

    def __init__(self, pool: str, *, on_gpu: bool) -> None:
        """Begins to count the time in which the GPU waits.

        Args:
            pool: the name of the worker's pool.
            on_gpu: the worker holds a GPU.
        """
        self.pool, self.on_gpu = pool, on_gpu
        self._idle_since = time.perf_counter()
        self._waited = 0.0
        self._seconds: dict[str, float] = {}
        self._lock = Lock()

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Times a block in which a stage runs; threads may do so at once."""
        started = time.perf_counter()
        on_gpu = self.on_gpu and stage.kind == "device"
        try:
            yield
        finally:
            ended, name = time.perf_counter(), type(stage).__name__
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + ended - started
                if on_gpu:
                    self._waited += max(0.0, started - self._idle_since)
                    self._idle_since = ended

    def tell(self, *, stream: str | None = None, rows: pa.Table | None = None) -> None:
        """Passes on what has been measured since the last time.

        Args:
            stream: name of the stream that writes rows; None where they aren't written.
            rows: what it writes, with the error columns.
        """
        with self._lock:
            seconds, waited = self._seconds, self._waited
            self._seconds, self._waited = {}, 0.0
        for stage, taken in seconds.items():
            _add(STAGE_SECONDS, taken, stage)
        _add(GPU_WAIT_SECONDS, waited, self.pool)
        if stream is not None and rows is not None:
            _add(ROWS, rows.num_rows, stream)
            _add(QUARANTINED, rows.num_rows - rows["error_stage"].null_count, stream)


def _add(name: str, value: float, tag: str) -> None:
    ray = sys.modules.get("ray")  # whoever runs without it has nobody to tell
    if value > 0 and ray is not None and ray.is_initialized():
        _counter(name).inc(value, tags={METRICS[name][0]: tag})


@cache
def _counter(name: str) -> Any:
    from ray.util.metrics import Counter

    tag, description = METRICS[name]
    return Counter(name, description=description, tag_keys=(tag,))
