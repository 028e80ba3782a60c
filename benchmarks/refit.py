"""What the refit of maps depends on: which cells teach, how many, how strong the ridge is, and whether rounds help.

    python benchmarks/refit.py voc/config.yaml --num-images 311

The config is that of a finished run; its classifier's maps and features are computed once and kept in memory, some
8 MB an image. Each row fits weights on the images of `splits.masks` that have true masks, which only score. Scores are
mean IoU: of the maps, each cell's best of background and labels, and of their walk with the run's AffinityNet and
settings; pixels are counted at the image's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from measure import machine, table
from numpy.typing import NDArray
from runs import read_images
from torch import Tensor

from raypipe import storage
from raypipe.config import load_config
from raypipe.data.images import decode_mask
from raypipe.data.manifest import class_ids_of
from raypipe.networks import network_input
from raypipe.networks.precision import autocasting
from raypipe.ops.cam import normalize_cams, stack_background, upsample_to_image
from raypipe.ops.metrics import mean_iou_of_counts
from raypipe.ops.random_walk import propagate_at
from raypipe.ops.refit import EMPTY, LAM, SURE, fit_cells, softmax_maps, sure_cells
from raypipe.pages.finished import find_masks
from raypipe.pipelines.context import Context, open_context
from raypipe.schema import BACKGROUND, GRID_STRIDE, IGNORE
from raypipe.stages.cells import NetworkAffinity
from raypipe.stages.decode import pixels_of
from raypipe.stages.networks import load_classifier
from raypipe.stages.sample_cells import RefitSettings, spread_cells
from raypipe.streams.collect import collect, draw

LAMS, SURES, EMPTIES, NUMBERS = (1e-5, 1e-4, 1e-3, 1e-2), (0.5, 0.6, 0.75), (0.15, 0.25, 0.35), (10, 16, 150)


@dataclass
class Image:
    """What is known of an image at stride 8."""

    class_ids: list[int]
    cam: Tensor
    """(K, h, w) of the classifier's pass of the image as it is, normalised."""
    features: Tensor
    """(D, h, w) in float16."""
    affinity: Tensor
    truth: NDArray[np.uint8]


def main(
    config: str,
    num_images: Annotated[int, typer.Option(help="Of those with true masks.")] = 311,
    overrides: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Prints a table."""
    context = open_context(load_config(storage.read_bytes(config).decode(), overrides or []))
    images = read(context, num_images)
    walk, num_labels = context.config.walk, len(context.classes) + 1

    def score(scores_of: Callable[[Image], Tensor], steps: int) -> float:
        """Mean IoU of stacks (1 + K, h, w) after some steps."""
        counts = np.zeros((3, num_labels))
        for image in images:
            stack = scores_of(image)
            walked = propagate_at(stack, image.affinity, beta=walk.beta, steps=[steps])[0] if steps else stack
            best = upsample_to_image(walked, size=image.truth.shape, stride=GRID_STRIDE).argmax(dim=0).numpy()
            labels, known = np.array([BACKGROUND, *image.class_ids])[best], image.truth != IGNORE
            right = image.truth[known & (labels == image.truth)]
            for row, of in enumerate((right, labels[known], image.truth[known])):
                counts[row] += np.bincount(of, minlength=num_labels)
        return 100 * float(mean_iou_of_counts(*counts))

    def fit(
        labels_of: Callable[[Image], NDArray[np.uint8]],
        *,
        lam: float = LAM,
        number: int = RefitSettings().cells_per_label,
    ) -> Tensor:
        labels, features = [], []
        for image in images:
            flat = labels_of(image).reshape(-1)
            cells = spread_cells(flat, number=number)
            labels.append(flat[cells])
            features.append(image.features.flatten(1)[:, cells].T.numpy())
        weights = fit_cells(np.concatenate(features), np.concatenate(labels), num_labels=num_labels, lam=lam)
        return torch.from_numpy(weights.astype(np.float32))

    def maps(weights: Tensor) -> Callable[[Image], Tensor]:
        def of(image: Image) -> Tensor:
            wanted = weights[[BACKGROUND, *image.class_ids]]
            scores = torch.einsum("kd,dhw->khw", wanted[:, :-1], image.features.float()) + wanted[:, -1, None, None]
            found = softmax_maps(scores)
            return torch.cat([1 - found.sum(dim=0, keepdim=True), found])

        return of

    def sure(image: Image, *, above: float = SURE, below: float = EMPTY) -> NDArray[np.uint8]:
        return sure_cells(image.cam, image.class_ids, sure=above, empty=below)

    rows: list[list[str]] = []

    def add(name: str, scores_of: Callable[[Image], Tensor]) -> None:
        rows.append([name, f"{score(scores_of, 0):.1f}", f"{score(scores_of, walk.num_steps):.1f}"])
        typer.echo(" | ".join(rows[-1]), err=True)

    for alpha in (1.0, 2.0, 3.0):
        add(f"not refitted, background of alpha {alpha:g}", lambda image: stack_background(image.cam, alpha=alpha))  # noqa: B023
    add("refitted", maps(fit(sure)))
    for lam in LAMS:
        add(f"lambda {lam:g}", maps(fit(sure, lam=lam)))
    for above in SURES:
        add(f"sure above {above}", maps(fit(lambda image: sure(image, above=above))))  # noqa: B023
    for below in EMPTIES:
        add(f"empty below {below}", maps(fit(lambda image: sure(image, below=below))))  # noqa: B023
    for number in NUMBERS:
        add(f"{number} cells a label", maps(fit(sure, number=number)))
    first = maps(fit(sure))
    again = fit(lambda image: winners(image, first(image)))
    add("a second round, of the first one's own cells above one half", maps(again))

    def walked(image: Image) -> NDArray[np.uint8]:
        after = propagate_at(first(image), image.affinity, beta=walk.beta, steps=[walk.num_steps])[0]
        return winners(image, after / after.sum(dim=0))

    add("a second round, of the walked ones", maps(fit(walked)))
    typer.echo(f"{len(images)} images; walk: beta {walk.beta:g}, {walk.num_steps} steps. {machine()}\n")
    typer.echo(table(["", "maps", "walk"], rows))


def winners(image: Image, stack: Tensor) -> NDArray[np.uint8]:
    """Class ids of the cells that one label has more than half of."""
    best, index = stack.max(dim=0)
    labels = np.array([BACKGROUND, *image.class_ids], np.uint8)[index.numpy()]
    return np.where(best.numpy() > 0.5, labels, np.uint8(IGNORE))


@torch.inference_mode()
def read(context: Context, num_images: int) -> list[Image]:
    """Runs the networks on images with true masks."""
    found = find_masks(context)
    assert found.judge is not None
    assert found.affinity is not None
    config, device = context.config, torch.device("cpu")
    network = load_classifier(found.judge.uri, device="cpu", precision=config.precision)
    source = NetworkAffinity(found.affinity.uri, precision=config.precision, device="cpu", pixels_per_pass=None)
    passed = autocasting(network.maps_and_features, device, config.precision)
    rows = [row for row in collect(context.rows(config.splits.masks)).to_pylist() if row["mask_uri"]]
    chosen = draw([row["image_id"] for row in rows], num_images)
    images = []
    for row in read_images(context, [rows[index] for index in chosen]):
        pixels, ids = pixels_of(row, max_side=config.images.max_side), class_ids_of(row["labels"], context.classes)
        x, _ = network_input(pixels, preprocessing=network.preprocessing, device=device)
        both, cells = passed(x)[0], source([pixels])[0]
        images.append(
            Image(
                ids,
                normalize_cams(both[[class_id - 1 for class_id in ids]]),
                both[network.num_classes :].half(),
                cells.affinity(radius=config.radius),
                decode_mask(storage.read_bytes(row["mask_uri"])),
            )
        )
    return images


if __name__ == "__main__":
    typer.run(main)
