"""Peaks of the memory of a driver and its Ray processes."""

import threading

import psutil


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
