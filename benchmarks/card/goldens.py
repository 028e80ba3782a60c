"""The golden numbers of the reference implementations, computed on the device.

The folder's README says what its files hold and by which rule its networks are filled.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from card.report import Report
from card.setting import Setting
from raypipe.networks import Network, build_affinity_net, build_classifier, load_state
from raypipe.ops.affinity import affinity_labels, pairwise_affinity
from raypipe.ops.pamr import pamr
from raypipe.ops.random_walk import propagate_at
from raypipe.ops.saliency import eps_loss

Arrays = dict[str, Tensor]


def check_goldens(report: Report, setting: Setting, folder: Path | None) -> None:
    """Adds a row for each file of the folder."""
    checks: dict[str, Callable[[Report, Arrays], None]] = {
        "walk": _walk,
        "affinity_labels": _affinity_labels,
        "pamr_10_1-2-4-8-12-24": _pamr,
        "eps_loss": _eps_loss,
        "vgg16_aff": lambda report, data: _vgg16(report, data, folder),
        "resnet38_cls": lambda report, data: _resnet38(report, data, folder),
    }
    for name, check in checks.items():
        if folder is None:
            report.skip(name, "no --golden folder")
            continue
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            data = {key: torch.from_numpy(arrays[key]).to(setting.device) for key in arrays.files}
        check(report, data)


def _walk(report: Report, data: Arrays) -> None:
    affinity = pairwise_affinity(data["features"].double())
    walked = propagate_at(data["bg_and_cam"].double(), affinity, steps=[1, 256], tol=1e-10)
    report.close("walk, 1 and 256 steps", list(walked), [data["full_b8_t1"], data["full_b8_t256"]], rtol=1e-8, atol=0)
    inner = pairwise_affinity(data["features"])[:, :20, 4:26]
    report.close("affinities", [inner.flatten()], [data["aff"].flatten()], rtol=1e-5, atol=0)


def _affinity_labels(report: Report, data: Arrays) -> None:
    masks = [mask[:, :16, 4:16].reshape(34, 192) for mask in affinity_labels(data["label"])]
    report.close("labels of pairs", masks, [data["bg"], data["fg"], data["neg"]], atol=0)


def _pamr(report: Report, data: Arrays) -> None:
    report.close("PAMR", [pamr(data["image"], data["mask"])], [data["out"]], rtol=1e-4, atol=0)


def _eps_loss(report: Report, data: Arrays) -> None:
    result = eps_loss(data["cam"], data["saliency"], data["label"], tau=0.5, lam=0.5)
    ours = [result.loss.reshape(1), result.foreground, 1 - result.background, result.estimate]
    theirs = [data["loss_0.5"].reshape(1), data["fg_0.5"], data["bg_0.5"], data["pred_0.5"]]
    report.close("EPS: loss and maps", ours, theirs, rtol=1e-4, atol=1e-7)


@torch.inference_mode()
def _vgg16(report: Report, data: Arrays, folder: Path | None) -> None:
    network = _filled(build_affinity_net, "vgg16", folder, "vgg16_aff", data["x"].device)
    report.close("VGG16 AffinityNet: features", [network(data["x"])], [data["f"]], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def _resnet38(report: Report, data: Arrays, folder: Path | None) -> None:
    network: Any = _filled(build_classifier, "resnet38", folder, "resnet38_cls", data["x"].device, num_classes=20)
    ours = [network.cam(data["x"]), network(data["x"])]
    report.close("ResNet38 classifier: maps and logits", ours, [data["cam"], data["logit"]], rtol=1e-4, atol=1e-5)


def _filled(
    build: Callable[..., Network], backbone: str, folder: Path | None, keys: str, device: torch.device, **options: Any
) -> Network:
    assert folder is not None
    shapes: dict[str, list[int]] = json.loads((folder / f"{keys}_keys.json").read_text())
    state = {name: _fill(name, shape) for name, shape in shapes.items()}
    network = build(backbone, **options)
    load_state(network, state, source=keys, require_head=True)
    return network.eval().to(device)


def _fill(name: str, shape: list[int]) -> Tensor:
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        values = random.normal(0, 0.1, shape)
    elif len(shape) >= 2:
        values = random.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape)
    elif name.endswith("weight"):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.normal(0, 0.1, shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
