"""Peaks of memory: of a process of its own, of a driver and its Ray processes."""

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


def run_alone(function: Callable[..., T], *args: object) -> T:
    """A function's result from a process of its own, which has held nothing before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        return processes.submit(function, *args).result()


def reset_peak() -> float:
    """Lets this process's peak count from here; what it holds now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Largest resident size of this process since `reset_peak`, in MiB."""
    return _status("VmHWM")


def added(call: Callable[[], object]) -> float:
    """Memory that a call adds to this process at its peak, its result included, in MiB."""
    before = reset_peak()
    call()
    return peak() - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


class Memory:
    """Peak of the memory that the driver and Ray's workers have to themselves, and of Ray's services."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            now: dict[str, int] = {}
            driver = psutil.Process()
            for process in [driver, *driver.children(recursive=True)]:
                try:
                    title, own = process.name(), process.memory_full_info().uss
                except psutil.Error:
                    continue  # it ended meanwhile
                kind = "driver" if process == driver else "workers" if title.startswith("ray::") else "Ray's services"
                now[kind] = now.get(kind, 0) + own
            now["driver and workers"] = now.get("driver", 0) + now.get("workers", 0)
            for kind, own in now.items():
                self.peaks[kind] = max(self.peaks.get(kind, 0), own)
