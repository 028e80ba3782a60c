"""How long single parts take, and how much of the card they use."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from card.kernels import Counted
from card.report import Report
from card.setting import Mode, Setting, decoded_rows, jpeg, photograph, random_grids
from raypipe.config import Cams
from raypipe.config.base import Precision
from raypipe.data.images import decode_image
from raypipe.networks import build_classifier
from raypipe.networks.folding import fold_batchnorm
from raypipe.networks.precision import cast_weights
from raypipe.ops.random_walk import propagate_batch
from raypipe.stages.refine_on_device import refine_on_device

WALK_MILLISECONDS = 0.5
RESNET38_SHARE = 0.35
MOST_KERNELS = 240


def measure_kernels(report: Report, setting: Setting) -> None:
    """Operators that launch a kernel in one forward pass of ResNet50 for maps, of which any device has as many."""
    network = build_classifier("resnet50", num_classes=20).eval()
    fold_batchnorm(network)
    network.to(setting.device)
    x = torch.zeros(2, 3, 64, 64, device=setting.device)
    with torch.inference_mode(), Counted() as alone:
        network.cam(x)
    report.measure("ResNet50, the network alone, float32", alone.kernels.total())
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        kept = [network.backbone.get_submodule(name) for name in network.backbone.float32_weights]
        cast_weights(network, setting.device, precision, kept=kept)
        stage = setting.cams(setting.sizes.main, "deterministic", cams=Cams(scales=(0.5,)), precision=precision)
        stage.network = network
        with Counted() as whole:
            stage.process_all(decoded_rows([(128, 128)]))
        total = whole.kernels.total()
        what = f"ResNet50 at one scale, with resizing and maps, {precision}"
        report.measure(what, total, target=f"at most {MOST_KERNELS}", reached=total <= MOST_KERNELS)


def measure_peak(report: Report, setting: Setting) -> float:
    """Operations a second of a large matrix product in bfloat16, in units of 10^12."""
    size = setting.sizes.matrix
    rng = torch.Generator(device=setting.device).manual_seed(0)
    a, b = (torch.randn(size, size, generator=rng, device=setting.device).bfloat16() for _ in range(2))
    (timing,) = setting.time(lambda: a @ b, runs=4 * setting.sizes.runs)
    peak = 2 * size**3 / timing.median / 1e12
    report.measure(f"bfloat16 product of {size}x{size} matrices", f"{peak:.4g} TFLOP/s ({timing})")
    return peak


def measure_cams(report: Report, setting: Setting, backbone: str, mode: Mode, peak: float) -> None:
    """Images a second of the stage of the maps, files decoded, and its share of the peak."""
    sizes = setting.sizes
    stage = setting.cams(backbone, mode)
    rows = decoded_rows([(sizes.side, sizes.side)] * sizes.batch)
    with FlopCounterMode(display=False) as counter:
        failed = stage.process_all(rows[:1])[0].get("error_reason")
    if failed is not None:
        raise RuntimeError(failed)
    flops = counter.get_total_flops()
    (timing,) = setting.time(lambda: stage.process_all(rows))
    share = flops * len(rows) / timing.median / 1e12 / peak
    what = f"{backbone}, {sizes.side}x{sizes.side}, {mode}"
    report.measure(f"{what}: images a second", f"{len(rows) / timing.median:.4g} ({timing} for {len(rows)})")
    aimed = backbone == "resnet38" and mode == "throughput"
    report.measure(
        f"{what}: share of the peak",
        f"{100 * share:.1f} %, {flops / 1e12:.3g} TFLOP an image",
        target=f"{100 * RESNET38_SHARE:.0f} %" if aimed else "",
        reached=share >= RESNET38_SHARE if aimed else None,
    )


def measure_walk(report: Report, setting: Setting) -> None:
    """Milliseconds an image of the walk: 4 maps, 256 steps."""
    for grid in setting.sizes.grids:
        for number in (1, setting.sizes.batch):
            cams, affinities = random_grids([grid] * number)
            given = [[each.to(setting.device) for each in both] for both in ([cam.float() for cam in cams], affinities)]
            (timing,) = setting.time(partial(propagate_batch, *given), runs=4 * setting.sizes.runs)
            milliseconds = 1e3 * timing.median / number
            aimed = number > 1
            report.measure(
                f"walk of {number} grids of {grid[0]}x{grid[1]}",
                f"{milliseconds:.3g} ms an image ({timing} for all)",
                target=f"at most {WALK_MILLISECONDS} ms" if aimed else "",
                reached=milliseconds <= WALK_MILLISECONDS if aimed else None,
            )


def measure_refinements(report: Report, setting: Setting) -> None:
    """Milliseconds of an image's refinement on the device: one line for each way."""
    side = setting.sizes.side
    rng = torch.Generator().manual_seed(0)
    pixels = torch.from_numpy(photograph(0, side, side)).to(setting.device)
    scores = torch.rand(1, 4, side, side, generator=rng).to(setting.device)
    ways: dict[str, Literal["pamr", "dcrf"]] = {"PAMR": "pamr", "dense CRF": "dcrf"}
    for name, method in ways.items():

        def refine(method: Literal["pamr", "dcrf"] = method) -> Tensor:
            with torch.inference_mode():
                return refine_on_device(pixels, scores, method)

        (timing,) = setting.time(refine)
        report.measure(f"{name}, 4 maps of {side}x{side}", timing)


def measure_decoding(report: Report, setting: Setting) -> None:
    """Time of one file, by one thread of the CPU."""
    height, width = setting.sizes.image
    data = jpeg(photograph(0, height, width))
    (timing,) = setting.time(lambda: decode_image(data), runs=4 * setting.sizes.runs)
    report.measure(f"JPEG of {height}x{width}", timing)
