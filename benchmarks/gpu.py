"""What a card is to show: checks, which must hold, and measurements beside their targets, as one table.

    python benchmarks/gpu.py [--golden DIR] [--device cuda] [--minutes 8]

It takes 8 minutes at most, and torch, torchvision, triton, numpy, scipy, pillow, pyarrow, jaxtyping, fsspec, pydantic:
neither Ray nor storage nor a command line's packages, since machines with a card often have no more. Where timm is
missing, the rows of its networks read "not run". It is argparse that reads the options, not typer as elsewhere. Images
and weights are made up; time doesn't depend on them. Exits with 1 where a check fails; a target that is missed is shown
and fails nothing. `--device cpu` runs the same with tiny networks, which shows that the checks work, and says nothing
about time.
"""

import argparse
import faulthandler
import gc
import math
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from card import against_cpu, failures, goldens, loop, repeat, speed, training
from card.report import Report
from card.setting import MODES, SMALL, Mode, Setting, Sizes
from measure import machine

from raypipe.networks.cuda import arrange_cuda


def run_checks(report: Report, setting: Setting, golden: Path | None) -> None:
    """Adds all checks."""
    checks: dict[str, Callable[[], None]] = {
        "golden numbers": partial(goldens.check_goldens, report, setting, golden),
        "walk against the CPU": partial(against_cpu.check_walk, report, setting),
        "maps against the CPU": partial(against_cpu.check_cams, report, setting),
        "maps of timm's networks": partial(against_cpu.check_more_cams, report, setting),
        "affinity against the CPU": partial(against_cpu.check_affinity, report, setting),
        "refinement against the CPU": partial(against_cpu.check_refinement, report, setting),
        "colours against the CPU": partial(against_cpu.check_colours, report, setting),
        "saliency losses against the CPU": partial(against_cpu.check_saliency_losses, report, setting),
        "training steps against the CPU": partial(against_cpu.check_steps, report, setting),
        "equal bytes, stages": partial(repeat.check_stages, report, setting),
        "equal bytes, trainings": partial(repeat.check_training, report, setting),
        "NaN": partial(failures.check_nan, report, setting),
        "out of memory": partial(failures.check_memory, report, setting),
        "tiny images": partial(failures.check_tiny, report, setting),
    }
    for part, check in checks.items():
        report.run(part, check)
        free_memory()


def run_measurements(report: Report, setting: Setting) -> None:
    """Adds all measurements, the most wanted first."""
    peaks: list[float] = []
    parts: list[tuple[str, Callable[[], None]]] = [
        ("kernels", partial(speed.measure_kernels, report, setting)),
        ("peak", lambda: peaks.append(speed.measure_peak(report, setting))),
        ("walk", partial(speed.measure_walk, report, setting)),
        ("loop", partial(loop.measure_loop, report, setting, "throughput", "none")),
        ("loop", partial(loop.measure_recipe, report, setting)),
    ]
    parts += [
        ("CAM pass", partial(measure_cams, report, setting, backbone, mode, peaks))
        for mode in reversed(MODES)
        for backbone in reversed(setting.sizes.measured)
    ]
    parts += [("training", partial(training.measure_training, report, setting, name)) for name in training.TASKS]
    parts += [
        ("refinement", partial(speed.measure_refinements, report, setting)),
        ("decoding", partial(speed.measure_decoding, report, setting)),
        ("loop", partial(loop.measure_loop, report, setting, "deterministic", "none")),
        ("loop", partial(loop.measure_loop, report, setting, "throughput", "pamr")),
        ("loop", partial(loop.measure_loop, report, setting, "throughput", "dcrf")),
    ]
    for part, measure in parts:
        report.run(part, measure, measures=True)
        free_memory()


def measure_cams(report: Report, setting: Setting, backbone: str, mode: Mode, peaks: list[float]) -> None:
    """Adds the CAM pass of a backbone, whose share of the peak is known once the peak is."""
    if report.has(backbone):
        speed.measure_cams(report, setting, backbone, mode, peaks[-1] if peaks else math.nan)


def free_memory() -> None:
    """Gives back what the last part has held, so that the next one's peak is its own."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def main() -> int:
    """Prints the table; returns 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--golden", type=Path, help="folder of golden numbers")
    parser.add_argument("--minutes", type=float, default=8.0, help="what doesn't fit in is left out")
    options = parser.parse_args()
    if options.device == "cuda":
        arrange_cuda()
        if not torch.cuda.is_available():
            parser.error("torch sees no card; --device cpu runs the checks small")
    faulthandler.dump_traceback_later(90 * options.minutes, exit=True)  # rather than to wait for a card that hangs
    report = Report(minutes=options.minutes, judges=options.device == "cuda")
    threads = min(16, os.cpu_count() or 2)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads, thread_name_prefix="decode") as decoders:
        setting = Setting(
            device=torch.device(options.device),
            sizes=Sizes() if options.device == "cuda" else SMALL,
            folder=Path(folder),
            threads=decoders,
        )
        run_checks(report, setting, options.golden)
        run_measurements(report, setting)
    faulthandler.cancel_dump_traceback_later()
    print(machine(), report, sep="\n\n")
    print(f"\n{report.num_failed} checks failed" if report.num_failed else "\nall checks hold")
    return 1 if report.num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
