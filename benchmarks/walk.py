"""The random walk: against the dense reference, over image sizes, and a whole grid of settings from few expansions.

    python benchmarks/walk.py [--num-runs 5] [--plot benchmarks/walk.svg]

The reference is what the released codes do: T as a dense float32 matrix, squared log2(t) times, on all cores. Only the
squarings and the last product are timed, not the building of T from affinities; raypipe's time holds everything from
affinities to maps.
"""

import itertools
from pathlib import Path
from typing import Annotated

import torch
import typer
from measure import machine, table, time_interleaved
from memory import added, run_alone
from psa_recipe import dense_transition, dense_walk
from torch import Tensor

from raypipe.ops.affinity import pairwise_affinity
from raypipe.ops.cam import stack_background
from raypipe.ops.random_walk import propagate, propagate_at

GRID = (47, 63)
"""That of an image of 376 x 504 pixels."""
NUM_CLASSES = 3
NUM_STEPS = 256
SIDES = (256, 384, 512, 768, 1024, 1536, 2048)
ALPHAS = (1.0, 2.0, 4.0, 8.0, 16.0)
BETAS = (2.0, 4.0, 8.0, 12.0, 16.0)
STEPS = (1, 4, 8, 16, 32, 64, 128, 192, 256)


def make_image(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Maps (K, h, w) and affinities of smooth random features: coherent regions with edges of every strength."""
    rng = torch.Generator().manual_seed(height * width)
    coarse = torch.randn(1, 32 + NUM_CLASSES, max(2, height // 6), max(2, width // 6), generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    cams = smooth[:NUM_CLASSES].sub_(smooth[:NUM_CLASSES].amin((1, 2), keepdim=True))
    cams /= cams.amax((1, 2), keepdim=True)
    return cams, pairwise_affinity(0.5 * smooth[NUM_CLASSES:])


def against_dense(num_runs: int) -> str:
    """Time, error and argmax against the dense reference."""
    cams, affinity = make_image(*GRID)
    scores = stack_background(cams, alpha=16)
    matrix = dense_transition(affinity, beta=8, dtype=torch.float32)
    dense, ours = time_interleaved(
        [
            lambda: dense_walk(scores, matrix, num_squarings=8),
            lambda: propagate(scores, affinity, beta=8, num_steps=NUM_STEPS, tol=1e-5),
        ],
        num_runs=num_runs,
    )
    exact = dense_walk(scores.double(), dense_transition(affinity, beta=8, dtype=torch.float64), num_squarings=8)
    walked = propagate(scores, affinity, beta=8, num_steps=NUM_STEPS, tol=1e-5)
    reference = dense_walk(scores, matrix, num_squarings=8)
    rows = []
    for name, timing, result in (("dense, float32", dense, reference), ("raypipe, tol 1e-5", ours, walked)):
        error = (result.double() - exact).abs().max() / scores.abs().max()
        equal = (result.argmax(0) == exact.argmax(0)).float().mean()
        rows.append((name, timing, f"{dense.median / timing.median:.0f}", f"{error:.1e}", f"{100 * equal:.2f} %"))
    header = ("walk", "time", "times faster", "largest error against float64", "cells with its argmax")
    return table(header, rows)


def megabytes_added(side: int) -> float:
    """Memory that the walk of a square image adds at its peak, in MiB."""
    cams, affinity = make_image(side // 8, side // 8)
    scores = stack_background(cams, alpha=16)
    propagate(scores[:, :4, :4].contiguous(), affinity[:, :4, :4].contiguous())  # loads what is loaded once
    return added(lambda: propagate(scores, affinity))


def over_sizes(num_runs: int) -> tuple[str, list[tuple[int, float, float]]]:
    """Time and memory of square images."""
    grids = [GRID, *((side // 8, side // 8) for side in SIDES)]
    images = [make_image(*grid) for grid in grids]
    inputs = [(stack_background(cams, alpha=16), affinity) for cams, affinity in images]
    timings = time_interleaved(
        [lambda pair=pair: propagate(*pair, num_steps=NUM_STEPS) for pair in inputs],  # type: ignore[misc]
        num_runs=num_runs,
    )
    per_cell = timings[0].median / (GRID[0] * GRID[1])
    rows, points = [], []
    for (height, width), timing in zip(grids, timings, strict=True):
        cells = height * width
        ratio = timing.median / cells / per_cell
        row = (f"{height}x{width}", timing, f"{ratio:.2f}")
        if height == width:
            points.append((64 * cells, timing.median, run_alone(megabytes_added, 8 * height)))
            rows.append((*row, f"{points[-1][2]:.0f}"))
        else:
            rows.append((*row, ""))
    header = ("grid", "time", "time a cell, 47x63 = 1", "memory added, MiB")
    return table(header, rows), points


def grid_of_settings(num_runs: int) -> str:
    """5 alphas x 5 betas x 9 values of t, against one setting."""
    cams, affinity = make_image(*GRID)

    def single() -> Tensor:
        return propagate(stack_background(cams, alpha=16), affinity, beta=8, num_steps=NUM_STEPS)

    def all_settings() -> list[Tensor]:
        # alpha enters through the background's map alone, and maps walk independently of each other.
        backgrounds = torch.cat([stack_background(cams, alpha=alpha)[:1] for alpha in ALPHAS])
        maps = torch.cat([backgrounds, cams])
        return [propagate_at(maps, affinity, beta=beta, steps=STEPS) for beta in BETAS]

    one, grid = time_interleaved([single, all_settings], num_runs=num_runs)
    walked = all_settings()
    for (a, alpha), (b, beta), (s, t) in itertools.product(
        *(list(enumerate(values))[::4] for values in (ALPHAS, BETAS, STEPS))
    ):
        maps = walked[b][s]
        expected = propagate(stack_background(cams, alpha=alpha), affinity, beta=beta, num_steps=t)
        if not torch.equal(torch.cat([maps[a : a + 1], maps[len(ALPHAS) :]]), expected):
            raise AssertionError(f"alpha {alpha}, beta {beta}, t {t} differs from its single run")
    return table(
        ("settings", "time", "times one setting"),
        [("alpha 16, beta 8, t 256", one, 1), ("5 x 5 x 9 = 225", grid, f"{grid.median / one.median:.1f}")],
    )


def draw(points: list[tuple[int, float, float]], path: Path) -> None:
    """Time and memory against pixels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    pixels, seconds, megabytes = zip(*points, strict=True)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axis, values, label in zip(axes, (seconds, megabytes), ("seconds", "MiB added"), strict=True):
        axis.loglog(pixels, values, "o-", label="raypipe")
        axis.loglog(pixels, [values[0] * p / pixels[0] for p in pixels], "--", color="0.6", label="linear")
        axis.set_xlabel("pixels of the image")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"Random walk, t = {NUM_STEPS}, {NUM_CLASSES + 1} maps")
    figure.savefig(path)


def main(
    num_runs: Annotated[int, typer.Option(min=1, help="timed calls of each")] = 5,
    plot: Annotated[Path | None, typer.Option(help="where to draw time and memory against pixels")] = None,
) -> None:
    """Prints the tables of benchmarks/speed.md's section on the walk."""
    print(machine(), end="\n\n")
    print(against_dense(num_runs), end="\n\n")
    print(grid_of_settings(num_runs), end="\n\n")
    sizes, points = over_sizes(num_runs)
    print(sizes)
    if plot is not None:
        draw(points, plot)


if __name__ == "__main__":
    typer.run(main)
