"""What a search of the walk's settings finds and costs beside the grid; run nothing else beside it.

    python benchmarks/tune_search.py config.yaml splits.masks=[train]

The config names trained networks in `checkpoints`; its images need true masks, which choose nothing here. Grid and
searches run in one Ray. Both are taken without the scoring at full resolution that follows them and is the same for
both; mean IoU is that at a quarter of the resolution. Core-seconds are those of the driver and of Ray's workers.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import psutil
import typer
from measure import machine, table
from runs import connect_run, with_values

from raypipe import storage
from raypipe.config import load_config
from raypipe.pipelines.walk.search import Search, cells_plan, search_walk
from raypipe.pipelines.walk.separations import Separations
from raypipe.pipelines.walk.setting_scores import SettingScores, score_settings, sweep_plan
from raypipe.pipelines.walk.sweep import STRIDE, grid, scored_rows
from raypipe.run import Run
from raypipe.stages.walk_scores import Setting

CUT_OFF: dict[str, Any] = {"alphas": [2.0, 4.0], "betas": [16.0, 32.0], "steps": [0, 4, 8]}
"""A grid that ends before its best setting."""


class CoreSeconds:
    """CPU time of this process and of Ray's workers below it, looked at five times a second."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._own = psutil.Process()
        threading.Thread(target=self._look, daemon=True).start()

    @contextmanager
    def of(self, name: str, into: dict[str, float]) -> Iterator[None]:
        """Notes what is spent within."""
        before = self._total()
        yield
        into[name] = self._total() - before

    def _total(self) -> float:
        self._update()
        return sum(self._seen.values())

    def _update(self) -> None:
        for process in [self._own, *self._own.children(recursive=True)]:
            try:
                name = process.name()
                if process == self._own or (name.startswith("ray::") and not name.startswith("ray::Dashboard")):
                    times = process.cpu_times()
                    self._seen[process.pid] = times.user + times.system
            except psutil.Error:
                continue  # it ended meanwhile

    def _look(self) -> None:
        ended = threading.Event()
        while not ended.wait(0.2):
            self._update()


def chosen(parted: Separations) -> tuple[Setting, float]:
    """The setting with the best objective, and that."""
    objective = parted.objective()
    index = int(objective.argmax())
    return parted.settings[index], float(objective[index])


def scored(run: Run, settings: list[Setting]) -> SettingScores:
    """Scores of settings at a quarter of the resolution."""
    maps, affinity = run.find_maps(), run.train_affinity()
    plan = sweep_plan(run.context, settings, maps=maps, affinity=affinity, stride=STRIDE, chosen=False)
    return score_settings(run.context, plan, scored_rows(run.context), settings, maps=maps)[1]


def searched(run: Run, folder: str) -> Search:
    """A search of its own; the cells that it walks on are those of the first one."""
    maps, affinity, context = run.find_maps(), run.train_affinity(), run.context
    plan = cells_plan(context, maps=maps, affinity=affinity)
    return search_walk(context, scored_rows(context), plan, maps=maps, folder=folder)


def text(setting: Setting) -> str:
    """Such as `alpha 32, beta 8, num_steps 16, radius 5`."""
    return ", ".join(f"{name} {value:g}" for name, value in setting._asdict().items())


def main(
    config: Annotated[str, typer.Argument(help="config with trained networks in `checkpoints`")],
    overrides: Annotated[list[str] | None, typer.Argument(help="dotted overrides")] = None,
    num_seeds: Annotated[int, typer.Option(min=1, help="of the sampler, from 0")] = 10,
) -> None:
    """Prints the table of benchmarks/sweep.md."""
    print(machine(), end="\n\n")
    base = load_config(storage.read_bytes(config).decode(), [*(overrides or []), "sweep.num_images=null"])
    run, watch = connect_run(base), CoreSeconds()
    spent: dict[str, float] = {}
    with watch.of("grid", spent):
        settings = grid(run.context)
        whole = scored(run, settings)
    with watch.of("cells", spent):
        plan = cells_plan(run.context, maps=run.find_maps(), affinity=run.train_affinity())
        run.context.run(plan, scored_rows(run.context))
    found: dict[str, tuple[Setting, float]] = {"grid": chosen(whole.separations)}
    truth = whole.mean_iou(whole.with_truth())
    print(
        f"grid's best by truth: {text(settings[truth.argmax()])}, {100 * truth.max():.2f}; core-s: {spent}", flush=True
    )
    cut = connect_run(with_values(base, sweep=CUT_OFF, walk={"alpha": 4.0, "beta": 32.0, "num_steps": 8}))
    found["grid, cut off"] = chosen(scored(cut, grid(cut.context)).separations)
    with watch.of("search where the grid is cut off", spent):
        search = searched(cut, storage.join(base.out, "searches", "cut"))
    spent["search where the grid is cut off"] += spent["cells"]
    found["search where the grid is cut off"] = chosen(search.separations)
    for seed in range(num_seeds):
        name = f"search, seed {seed}"
        other = connect_run(with_values(base, seed=seed))
        with watch.of(name, spent):
            search = searched(other, storage.join(base.out, "searches", str(seed)))
        found[name] = chosen(search.separations)
        print(f"{name}: {text(found[name][0])}, objective {found[name][1]:.4f}, {spent[name]:.1f} core-s", flush=True)
        spent[name] += spent["cells"]
    each = list(dict.fromkeys(setting for setting, _ in found.values()))
    last = scored(run, each)
    mean_iou = dict(zip(each, 100 * last.mean_iou(last.with_truth()), strict=True))
    rows = [
        (name, text(setting), f"{value:.4f}", f"{mean_iou[setting]:.2f}", f"{spent[name]:.1f}" if name in spent else "")
        for name, (setting, value) in found.items()
    ]
    print(table(("", "chosen without truth", "objective", "mIoU, %", "core-seconds"), rows))


if __name__ == "__main__":
    typer.run(main)
