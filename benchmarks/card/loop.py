"""The bare loop of the stages, from files to masks; where its time goes; the reference recipe beside it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from psa_recipe import cams_one_by_one, walk_densely

from card.report import Report
from card.setting import CLASS_IDS, CONFIG, Method, Mode, Setting, files
from raypipe.data.images import decode_image
from raypipe.networks import AffinityNet, AnyClassifier, build_affinity_net, build_classifier
from raypipe.stages.base import Row, Stage, run_stages
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.refine import RefineMasks
from raypipe.stages.walked import encode_grid

TIMES_FASTER = 10
BUSY_SHARE = 0.85
WALK_SHARE = 0.02
WALK_KERNEL = "_step"
"""Name of the walk's kernel in `raypipe.ops.stencil`."""


def measure_loop(report: Report, setting: Setting, mode: Mode, method: Method) -> None:
    """Images a second of the loop; where its time goes, by the host's clock and by the card's."""
    number = setting.sizes.num_images if method == "none" else max(1, setting.sizes.num_images // 4)
    table = files([setting.sizes.image] * number)
    stages = setting.stages(setting.sizes.main, mode, method)
    if setting.has_card:
        torch.cuda.reset_peak_memory_stats()
    (timing,) = setting.time(lambda: run(stages, table, setting), runs=min(3, setting.sizes.runs))
    what = f"{setting.sizes.main}, {mode}, refinement {method}"
    report.measure(f"{what}: images a second", f"{number / timing.median:.4g} ({timing} for {number})")
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    with timed_stages(stages, seconds):
        run(stages, table, setting)
    whole = time.perf_counter() - started
    shares = ", ".join(f"{name} {100 * spent / whole:.0f} %" for name, spent in seconds.items())
    report.measure(f"{what}: the host's time, waits for the card included", shares + " (decoding in threads)")
    if not setting.has_card:
        report.skip(f"{what}: share of time that the card is busy, copies, walk, peak memory", "no card")
        return
    report.measure(f"{what}: peak memory", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    spent = busy(lambda: run(stages, table, setting))
    share, walk = spent.kernels / spent.whole, spent.walk / max(spent.kernels, 1e-9)
    report.measure(f"{what}: the card is busy", f"{100 * share:.1f} %", target="85 %", reached=share >= BUSY_SHARE)
    report.measure(f"{what}: the walk's part of that", f"{100 * walk:.2f} %", target="2 %", reached=walk <= WALK_SHARE)
    report.measure(f"{what}: copies to and from the card", f"{100 * spent.copies / spent.whole:.1f} %")


def measure_recipe(report: Report, setting: Setting) -> None:
    """The loop without refinement against the reference recipe, which shares decoding, upsampling and encoding."""
    sizes = setting.sizes
    table = files([sizes.image] * max(2, sizes.num_images // 8))
    stages = setting.stages(sizes.main, "throughput", "none")
    torch.manual_seed(0)
    classifier = build_classifier(sizes.main, num_classes=20).eval().to(setting.device)
    affinity_net = build_affinity_net(sizes.main).eval().to(setting.device)
    reference, ours = setting.time(
        partial(run_recipe, table, classifier, affinity_net, setting.device),
        lambda: run(stages, table, setting),
        runs=min(3, sizes.runs),
    )
    ratio = reference.median / ours.median
    report.measure(f"reference recipe, {table.num_rows} images", reference)
    report.measure(
        f"the loop, {table.num_rows} images",
        f"{ours}, {ratio:.1f} times faster",
        target=f"{TIMES_FASTER} times",
        reached=ratio >= TIMES_FASTER,
    )


def run(stages: Sequence[Stage], table: pa.Table, setting: Setting) -> None:
    """Runs the stages as a worker does.

    Raises:
        RuntimeError: a row is in error, so that the time is worth nothing.
    """
    done = run_stages(stages, table, threads=setting.threads)
    failed = [reason for reason in done["error_reason"].to_pylist() if reason is not None]
    if failed:
        raise RuntimeError(failed[0])


def run_recipe(table: pa.Table, classifier: AnyClassifier, affinity_net: AffinityNet, device: torch.device) -> None:
    """Computes masks by the reference recipe, image by image."""
    refine, encode = RefineMasks(method="none", max_side=1024), EncodeMasks()
    with not_deterministic():
        for row in table.to_pylist():
            image = decode_image(row["image"])
            cam = cams_one_by_one(classifier, image.pixels, CLASS_IDS, scales=CONFIG.cams.scales, device=device)
            scores = walk_densely(affinity_net, image.pixels, cam, device=device).cpu().numpy()
            height, width = image.pixels.shape[:2]
            sizes = {"height": height, "width": width, "original_height": height, "original_width": width}
            whole = row | sizes | encode_grid(scores)
            encode.process(whole | refine.process(whole))


@contextmanager
def not_deterministic() -> Iterator[None]:
    """Leaves torch the choice of its operators, as the released codes do; deterministic ones can take longer."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(mode=False)
    torch.backends.cudnn.deterministic = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before[0], warn_only=True)
        torch.backends.cudnn.deterministic = before[1]


@contextmanager
def timed_stages(stages: Sequence[Stage], seconds: dict[str, float]) -> Iterator[None]:
    """Adds up the time that each stage's `process_all` takes."""

    def timed(name: str, process_all: Callable[..., list[Row]]) -> Callable[..., list[Row]]:
        def measured(rows: Sequence[Row]) -> list[Row]:
            started = time.perf_counter()
            done = process_all(rows)
            seconds[name] += time.perf_counter() - started
            return done

        return measured

    for stage in stages:
        name = type(stage).__name__
        seconds[name] = 0.0
        stage.process_all = timed(name, stage.process_all)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for stage in stages:
            del stage.process_all


class Busy(NamedTuple):
    """Seconds of a call."""

    whole: float
    kernels: float
    """In which some kernel ran."""
    walk: float
    copies: float


def busy(call: Callable[[], None]) -> Busy:
    """Runs a call under the profiler, which gets every kernel's and copy's beginning and end from the card."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        whole = time.perf_counter() - started
    events: list[Any] = [
        event
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    copies = [event for event in events if event.name.startswith(("Memcpy", "Memset"))]
    kernels = [event for event in events if not event.name.startswith(("Memcpy", "Memset"))]
    if not kernels:
        raise RuntimeError("the profiler saw no kernel")
    walk = [event for event in kernels if event.name.startswith(WALK_KERNEL)]
    return Busy(whole, _covered(kernels), _covered(walk), _covered(copies))


def _covered(events: Iterable[Any]) -> float:
    """Seconds in which at least one of the events runs; the profiler counts microseconds."""
    covered = end = 0.0
    for first, last in sorted((event.time_range.start, event.time_range.end) for event in events):
        covered += max(0.0, last - max(first, end))
        end = max(end, last)
    return covered / 1e6
