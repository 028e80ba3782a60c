"""What a search of the walk's settings finds and costs beside the grid; run nothing else beside it.

    python benchmarks/tune_search.py config.yaml splits.masks=[train]

The config names trained networks in `checkpoints`; its images need true masks, which choose nothing here. Grid and
searches run in one Ray and take turns, each from nothing but the networks: what a core does in a second changes by
itself. So `out` must hold no earlier measurement: what is finished isn't computed again. Both are taken without the
scoring at full resolution that follows them and is the same for both; mean IoU is that at a quarter of the resolution.
Core-seconds are those of the driver and of Ray's workers.
"""

import statistics
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
    """Scores of settings at a quarter of the resolution; nothing is computed for what the run's `out` has."""
    maps, affinity = run.find_maps(), run.train_affinity()
    plan = sweep_plan(run.context, settings, maps=maps, affinity=affinity, stride=STRIDE, choice="given")
    return score_settings(run.context, plan, scored_rows(run.context), settings, maps=maps)[1]


def searched(run: Run) -> Search:
    """A search of its own, maps and cells included."""
    maps, affinity, context = run.find_maps(), run.train_affinity(), run.context
    plan = cells_plan(context, maps=maps, affinity=affinity)
    return search_walk(
        context, scored_rows(context), plan, maps=maps, folder=storage.join(context.config.out, "search")
    )


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
    turns = storage.join(base.out, "turns")
    if storage.list_files(turns):
        raise typer.BadParameter(f"{turns} holds an earlier measurement, whose work would be free now: delete it")
    watch = CoreSeconds()
    spent: dict[str, float] = {}
    found: dict[str, tuple[Setting, float]] = {}
    ratios = []
    for seed in range(num_seeds):
        run = connect_run(with_values(base, seed=seed, out=storage.join(turns, str(seed))))
        run.find_maps()  # both before the time counts
        run.train_affinity()
        names = {each: f"{each}, seed {seed}" for each in ("grid", "search")}
        for each in ("grid", "search") if seed % 2 == 0 else ("search", "grid"):
            with watch.of(names[each], spent):
                parted = (scored(run, grid(run.context)) if each == "grid" else searched(run)).separations
            found[names[each]] = chosen(parted)
        ratios.append(spent[names["search"]] / spent[names["grid"]])
        for name in names.values():
            setting, value = found[name]
            print(f"{name}: {text(setting)}, objective {value:.4f}, {spent[name]:.1f} core-s", flush=True)
    print(
        f"core-seconds, search / grid: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}, "
        f"at most 1 in {sum(ratio <= 1 for ratio in ratios)} of {num_seeds}",
        flush=True,
    )
    settings = grid(run.context)
    whole = scored(run, settings)
    truth = whole.mean_iou(whole.with_truth())
    print(f"grid's best by truth: {text(settings[truth.argmax()])}, {100 * truth.max():.2f}", flush=True)
    short = {"alpha": 4.0, "beta": 32.0, "num_steps": 8}
    cut = connect_run(with_values(base, sweep=CUT_OFF, walk=short, out=storage.join(turns, "cut")))
    found["grid, cut off"] = chosen(scored(cut, grid(cut.context)).separations)
    found["search where the grid is cut off"] = chosen(searched(cut).separations)
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
