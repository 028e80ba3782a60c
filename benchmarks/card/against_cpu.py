"""The device's results against the CPU's."""

import numpy as np
import torch
from torch import Tensor

from card.report import Report
from card.setting import CONFIG, MODES, Setting, decoded_rows, photograph, random_grids
from card.training import TASKS, Trainer
from raypipe.data.arrays import decode_cam, encode_cam
from raypipe.ops import random_walk
from raypipe.ops.affinity import pairwise_affinity
from raypipe.ops.jitter import change_colours, draw_colour_change
from raypipe.ops.mean_field import mean_field
from raypipe.ops.pamr import pamr
from raypipe.ops.saliency import eps_loss, ird_loss
from raypipe.stages.base import Row
from raypipe.stages.cells import affinity_source

GRIDS = [(7, 9), (4, 20), (12, 3), (7, 9), (24, 31)]
TINY_GRIDS = [(1, 1), (1, 9), (9, 1), (2, 1), (1, 1)]
GRADIENT_ERROR = 5e-3
"""Of the norm: in float32, a pixel of EPS++ may be dropped on one device only."""
_WALK = {"beta": CONFIG.walk.beta, "steps": (CONFIG.walk.num_steps, 7, 0), "tol": 1e-5}


def check_walk(report: Report, setting: Setting) -> None:
    """Both ways to walk several images at once, grids of one row, column or cell among them."""
    ways = {"sparse matrices": random_walk._propagate_blocks}
    if setting.has_card:
        report.check("Triton builds the kernel", "", demanded="", held=random_walk._has_stencil(setting.device))
        ways["stencil"] = random_walk._propagate_stencil
    else:
        report.skip("walk, stencil", "Triton's kernels need a card")
    for grids, name in ((GRIDS, "grids of many sizes"), (TINY_GRIDS, "grids of 1x1, 1xN and Nx1 cells")):
        cams, affinities = random_grids(grids)
        pairs = list(zip(cams, affinities, strict=True))
        expected = [random_walk.propagate_at(cam, affinity, **_WALK) for cam, affinity in pairs]
        ours = [[each.to(setting.device) for each in both] for both in (cams, affinities)]
        for way, walk in ways.items():
            report.close(f"walk, {way}, {name}", walk(*ours, **_WALK), expected, atol=1e-12)


def check_cams(report: Report, setting: Setting) -> None:
    """Maps in float32, image by image and together."""
    side = setting.sizes.check_side
    rows = decoded_rows([(side, side), (side, 2 * side), (side, side), (1, side)])
    expected = setting.cams(setting.sizes.checked, "deterministic", device="cpu", precision="fp32").process_all(rows)
    for mode in MODES:
        computed = setting.cams(setting.sizes.checked, mode, precision="fp32").process_all(rows)
        report.close(f"maps, {mode}", maps_of(computed), maps_of(expected), atol=2e-3)


def check_more_cams(report: Report, setting: Setting) -> None:
    """Maps of timm's networks, whose images are padded and whose maps are resampled."""
    side = setting.sizes.check_side
    rows = decoded_rows([(side, side), (side, 2 * side)])
    for backbone in filter(report.has, setting.sizes.checked_more):
        expected = setting.cams(backbone, "deterministic", device="cpu", precision="fp32").process_all(rows)
        computed = setting.cams(backbone, "throughput", precision="fp32").process_all(rows)
        report.close(f"maps of {backbone}", maps_of(computed), maps_of(expected), atol=2e-3)


def check_affinity(report: Report, setting: Setting) -> None:
    """Affinities of a network's features, and the gradient of affinities."""
    side = setting.sizes.check_side
    images = [photograph(0, side, side), photograph(1, 5, side)]
    checkpoint = setting.checkpoint("affinity", setting.sizes.checked)
    affinities = [
        [cells.affinity(radius=5) for cells in affinity_source(checkpoint, precision="fp32", device=device)(images)]
        for device in ("cpu", setting.device.type)
    ]
    report.close("affinities of AffinityNet's features", affinities[1], affinities[0], atol=1e-4)
    features = torch.randn(2, 32, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = []
    for device in (torch.device("cpu"), setting.device):
        leaf = features.to(device).requires_grad_()
        pairwise_affinity(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    report.close("gradient of affinities", gradients[1:], gradients[:1], rtol=1e-9, atol=1e-12)


def check_refinement(report: Report, setting: Setting) -> None:
    """PAMR of two images, the dense CRF of one with two stacks of scores."""
    side = setting.sizes.check_side
    rng = torch.Generator().manual_seed(0)
    image, maps = torch.rand(2, 3, side, side, generator=rng), torch.rand(2, 4, side // 8, side // 8, generator=rng)
    ours = pamr(image.to(setting.device), maps.to(setting.device))
    report.close("PAMR", [ours], [pamr(image, maps)], atol=1e-4)
    pixels, scores = torch.from_numpy(photograph(0, side, side)), torch.rand(2, 4, side, side, generator=rng)
    ours = mean_field(pixels.to(setting.device), scores.to(setting.device))
    report.close("dense CRF", [ours], [mean_field(pixels, scores)], atol=1e-3)


def check_colours(report: Report, setting: Setting) -> None:
    """Colours that a loader has left to the device: the same bytes."""
    rng, side = np.random.default_rng(0), setting.sizes.check_side
    differ = 0
    for seed in range(20):
        change = draw_colour_change(rng, (0, 0, side, side))
        pixels = torch.from_numpy(photograph(seed, side, side)).permute(2, 0, 1)
        differ += not torch.equal(
            change_colours(pixels.to(setting.device), change).cpu(), change_colours(pixels, change)
        )
    report.check("colours of crops", f"{differ} of 20 differ", demanded="the same bytes", held=not differ)


def check_saliency_losses(report: Report, setting: Setting) -> None:
    """EPS and EPS++ with its drop, and their gradients; in float64, so that no decision hangs by a rounding."""
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, 4, 8, 8, generator=rng, dtype=torch.float64)
    saliency, image = (torch.rand(2, channels, 32, 32, generator=rng, dtype=torch.float64) for channels in (1, 3))
    labels = torch.tensor([[1, 0, 1], [1, 1, 0]])
    found: list[dict[str, list[Tensor]]] = []
    for device in (torch.device("cpu"), setting.device):
        given = [each.to(device) for each in (logits, saliency, labels)]
        of_device = {}
        for name, explain in (("EPS", eps_loss), ("EPS++", ird_loss)):
            leaf = given[0].clone().requires_grad_()
            extra = [image.to(device)] * (name == "EPS++")
            result = explain(leaf, *given[1:], *extra)
            result.loss.backward()
            of_device[name] = [result.per_image, result.foreground, leaf.grad]
        found.append(of_device)
    for name, expected in found[0].items():
        report.close(f"{name}: loss, maps, gradient", found[1][name], expected, rtol=1e-9, atol=1e-12)


def check_steps(report: Report, setting: Setting) -> None:
    """The gradient of every training's loss in float32, without dropout, whose random numbers differ."""
    for name in TASKS:
        sums = []
        for device in (torch.device("cpu"), setting.device):
            trainer = Trainer(name, "tiny", device, precision="fp32", crop_size=64)
            trainer.network.eval()
            loss = trainer.step(trainer.batch(4))
            gradients = [p.grad.flatten() for p in trainer.network.parameters() if p.grad is not None]
            sums.append((loss.detach().cpu(), torch.cat(gradients).cpu()))
        (expected_loss, expected), (loss, gradient) = sums
        error = ((gradient - expected).norm() / expected.norm()).item()
        report.close(f"{name}: loss", [loss.reshape(1)], [expected_loss.reshape(1)], rtol=1e-3, atol=0)
        held = error <= GRADIENT_ERROR
        report.check(f"{name}: gradient", f"relative error {error:.1e}", demanded=f"{GRADIENT_ERROR:g}", held=held)


def maps_of(rows: list[Row]) -> list[Tensor]:
    """Maps (K, h, w) of rows; none of one in error."""
    arrays = [
        decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]) if row.get("cam") else np.zeros(0)
        for row in rows
    ]
    return [torch.from_numpy(array) for array in arrays]


def with_random_maps(rows: list[Row]) -> list[Row]:
    """The rows with maps at stride 4, as the classifier's stage would leave them."""
    rng = np.random.default_rng(0)
    done = []
    for row in rows:
        height, width = (-(-side // 4) for side in row["pixels"].shape[:2])
        cam = encode_cam(rng.random((len(row["class_ids"]), height, width)).astype(np.float32))
        done.append(row | {"cam": cam, "cam_height": height, "cam_width": width})
    return done
