"""Two checkouts of raypipe against one another, in turns, on the same machine; nothing else should run beside it.

    git worktree add ../old ed14985
    python benchmarks/trees.py start ../old .    # `raypipe masks` until 32 rows are committed, all before it done
    python benchmarks/trees.py masks ../old .    # masks of 500 photographs, seeds reused: rows a second, memory
    python benchmarks/trees.py cost ../old .     # CPU seconds of masks with a small network: what streaming a row costs
    python benchmarks/trees.py demo ../old .     # both commands of `make demo`, after the installation
    python benchmarks/trees.py parts ../old .    # walk, passes of the networks, a training step, crops
    python benchmarks/trees.py suite ../old .    # the test suite

Both run in the environment of this process. Images are synthetic; networks are random but for the demo's.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import pyarrow.parquet as pq
import scipy.stats
import typer
from measure import machine, table

from raypipe.synthetic.generate import CLASSES, generate

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

COMMAND = [sys.executable, "-c", "from raypipe.cli import main; main()"]
"""`raypipe` of the checkout that PYTHONPATH names."""

RECIPES = {"demo": "preset: demo", "mobilenet_v2": "preset: voc_mobilenet_v2"}

Trees = Annotated[list[Path], typer.Argument(help="Checkouts, the old one first.")]
Runs = Annotated[int, typer.Option(min=1, help="Times that all take turns.")]


class Measured(NamedTuple):
    """One command."""

    seconds: float
    peak: float
    """MiB that the driver and Ray's workers had to themselves at most."""
    mark: float | None
    """Seconds until the mark was reached."""
    cpu: float
    """CPU seconds of the driver and all that it started, Ray's own processes among them."""


def run(tree: Path, words: Sequence[str], *, mark: Callable[[], bool] | None = None) -> Measured:
    """Runs `raypipe` of a checkout, and watches its processes.

    Args:
        tree: the checkout.
        words: of the command.
        mark: asked from time to time whether it is reached.
    """
    environment = os.environ | {"PYTHONPATH": str(tree.resolve())}
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [*COMMAND, *words], cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=errors
        )
        watch = _Watch(process.pid)
        reached = None
        while process.poll() is None:
            if mark is not None and reached is None and mark():
                reached = time.perf_counter() - started
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        watch.stop()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{tree}: {' '.join(words)} failed: {errors.read().decode()[-2000:]}")
    return Measured(seconds, watch.peak / 2**20, reached, sum(watch.cpu.values()))


class _Watch:
    """Peak of what a driver and its Ray workers have to themselves, and their CPU seconds, looked at twice a second."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self.cpu: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(psutil.Process(pid),), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch."""
        self._ended.set()
        self._thread.join()

    def _look(self, driver: psutil.Process) -> None:
        while not self._ended.wait(0.5):
            own = 0
            try:
                processes = [driver, *driver.children(recursive=True)]
            except psutil.Error:
                return
            for process in processes:
                try:
                    times = process.cpu_times()
                    self.cpu[process.pid] = times.user + times.system
                    if process == driver or process.name().startswith("ray::"):
                        own += process.memory_full_info().uss
                except psutil.Error:
                    continue  # it ended meanwhile
            self.peak = max(self.peak, own)


def _write_networks(tree: Path, folder: Path, backbone: str) -> None:
    """Writes random networks by the checkout's own code: the layers that an AffinityNet reads have changed."""
    code = "import sys; from measure import write_random_networks as write; write(*sys.argv[1:3], sys.argv[3:])"
    places = [str(tree.resolve() / name) for name in ("", "benchmarks")]
    subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", code, str(folder), backbone, *CLASSES],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        check=True,
    )


def _prepare(folder: Path, tree: Path, recipe: str, images: str) -> tuple[Path, list[str]]:
    """Lets a checkout do all that comes before its masks; its output folder, and what its commands are given."""
    out = folder / "out"
    config = folder / "config.yaml"
    config.write_text(RECIPES[recipe])
    given = [f"manifest={images}", f"out={out}"]
    given += [f"checkpoints.{task}={folder / 'networks' / task}" for task in _TASKS]
    given += ["splits.train=null", "splits.masks=null", "refinement.gate=off"]
    run(tree, ["seeds", str(config), *given])
    return out, ["masks", str(config), *given]


_TASKS = ("classifier", "affinity")


def _rows(out: Path) -> int:
    """Rows of masks that are committed; old trees write them as shards at once."""
    total = 0
    for shard in (path for kind in ("shards", "attempts") for path in out.glob(f"masks/*/{kind}/**/*.parquet")):
        try:
            total += pq.read_metadata(shard).num_rows
        except OSError:
            continue  # it is replaced or settled just now
    return total


def _masks(
    trees: Sequence[Path], recipe: str, *, num_images: int, side: int, runs: int, mark: int
) -> list[list[Measured]]:
    found: list[list[Measured]] = [[] for _ in trees]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(str(folder / "data"), num_images=num_images, sizes=(side * 3 // 4, side))
        prepared = []
        for number, tree in enumerate(trees):
            (folder / str(number)).mkdir()
            manifest = str(folder / "data" / "manifest.parquet")
            _write_networks(tree, folder / str(number) / "networks", "tiny" if recipe == "demo" else recipe)
            prepared.append(_prepare(folder / str(number), tree, recipe, manifest))
        for _ in range(runs):
            for tree, (out, words), measured in zip(trees, prepared, found, strict=True):
                shutil.rmtree(out / "masks", ignore_errors=True)
                measured.append(run(tree, words, mark=lambda out=out: _rows(out) >= mark))
    return found


@app.command()
def start(trees: Trees, runs: Runs = 3) -> None:
    """Seconds of `raypipe masks` until 32 rows are committed: 64 images, the demo's network."""
    found = _masks(trees, "demo", num_images=64, side=192, runs=runs, mark=32)
    _print(trees, {"until 32 rows are committed": [[m.mark or m.seconds for m in one] for one in found]}, "s")


@app.command()
def masks(trees: Trees, runs: Runs = 3, num_images: int = 500, side: int = 500) -> None:
    """Rows a second and memory of `raypipe masks`, the whole command, seeds reused, MobileNetV2, dense CRF."""
    found = _masks(trees, "mobilenet_v2", num_images=num_images, side=side, runs=runs, mark=num_images)
    _print(trees, {"rows a second": [[num_images / m.seconds for m in one] for one in found]}, "")
    _print(trees, {"peak of driver and workers": [[m.peak for m in one] for one in found]}, "MiB")


@app.command()
def cost(trees: Trees, runs: Runs = 10, num_images: int = 400, side: int = 192) -> None:
    """CPU seconds of `raypipe masks`, of the whole command and a row beyond its start: the demo's network.

    The ratio's interval (95 %) is of the pairs' logarithms.
    """
    starts = _masks(trees, "demo", num_images=8, side=side, runs=3, mark=8)
    found = _masks(trees, "demo", num_images=num_images, side=side, runs=runs, mark=num_images)
    whole = [[m.cpu for m in one] for one in found]
    begun = [statistics.median(m.cpu for m in one) for one in starts]
    rows = [[1000 * (cpu - start) / (num_images - 8) for cpu in one] for one, start in zip(whole, begun, strict=True)]
    _print(trees, {"CPU seconds": whole}, "s")
    _print(trees, {"CPU milliseconds a row": rows}, "ms")
    for name, measured in (("CPU seconds", whole), ("CPU milliseconds a row", rows)):
        logs = np.log(np.divide(measured[-1], measured[0]))
        low, high = scipy.stats.t.interval(0.95, runs - 1, logs.mean(), scipy.stats.sem(logs))
        print(f"{name}: {np.exp(logs.mean()):.3f} times ({np.exp(low):.3f} to {np.exp(high):.3f}), {runs} pairs")


@app.command()
def demo(trees: Trees, runs: Runs = 1) -> None:
    """Seconds and memory of `make demo` after the installation."""
    found: list[list[Measured]] = [[] for _ in trees]
    for _ in range(runs):
        for tree, measured in zip(trees, found, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                first = run(tree, ["synthetic", f"{folder}/data"])
                recipe = str(tree.resolve() / "raypipe" / "recipes" / "demo.yaml")
                given = [f"manifest={folder}/data/manifest.parquet", f"out={folder}/run"]
                second = run(tree, ["run", recipe, *given])
                measured.append(Measured(first.seconds + second.seconds, second.peak, None, first.cpu + second.cpu))
    _print(trees, {"make demo": [[m.seconds for m in one] for one in found]}, "s")
    _print(trees, {"peak of driver and workers": [[m.peak for m in one] for one in found]}, "MiB")


@app.command()
def parts(trees: Trees, runs: Runs = 5, threads: int = 2) -> None:
    """Milliseconds of what computes, alone in a process with so many threads."""
    found: dict[str, list[list[float]]] = {}
    script = Path(__file__).with_name("parts.py")
    for _ in range(runs):
        for index, tree in enumerate(trees):
            command = [sys.executable, str(script), "--threads", str(threads)]
            environment = os.environ | {"PYTHONPATH": str(tree.resolve())}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
            for name, seconds in json.loads(done.stdout.splitlines()[-1]).items():
                of_trees = found.setdefault(name, [[] for _ in trees])
                of_trees[index].append(1000 * statistics.median(seconds))
    _print(trees, {name: of_trees for name, of_trees in found.items() if all(of_trees)}, "ms")
    alone = {name: of_trees for name, of_trees in found.items() if not all(of_trees)}
    for name, of_trees in alone.items():
        median = statistics.median(value for values in of_trees for value in values)
        print(f"{name}, in one checkout only: {median:.4g} ms")


@app.command()
def suite(trees: Trees, runs: Runs = 1) -> None:
    """Seconds of the default test suite."""
    found: list[list[float]] = [[] for _ in trees]
    for _ in range(runs):
        for tree, seconds in zip(trees, found, strict=True):
            environment = os.environ | {"PYTHONPATH": str(tree.resolve())}
            started = time.perf_counter()
            command = [sys.executable, "-m", "pytest", "-q", "--durations=10"]
            done = subprocess.run(  # noqa: S603 - ourselves
                command, cwd=tree, env=environment, capture_output=True, text=True, check=False
            )
            seconds.append(time.perf_counter() - started)
            print(f"{tree}:\n{done.stdout[-3000:]}")
    _print(trees, {"test suite": found}, "s")


def _print(trees: Sequence[Path], measured: dict[str, list[list[float]]], unit: str) -> None:
    print(machine(), end="\n\n")
    for name, found in measured.items():
        medians = [statistics.median(values) for values in found]
        rows = [
            (
                _commit(tree),
                f"{median:.4g} {unit}".strip(),
                f"{min(values):.4g} to {max(values):.4g}, n = {len(values)}",
                f"{median / medians[0]:.2f}",
            )
            for tree, median, values in zip(trees, medians, found, strict=True)
        ]
        print(table(("commit", name, "spread", "relative to the first"), rows), end="\n\n")


def _commit(tree: Path) -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)  # noqa: S603 - fixed words
    return done.stdout.strip()


if __name__ == "__main__":
    app()
