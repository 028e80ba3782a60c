"""A run's masks as a PyTorch Dataset, from which a small network learns for a minute.

    python examples/torch_dataset.py [CONFIG]

Masks are read by id from their shards, wherever these lie; nothing is copied or unpacked before.
"""

import sys

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import raypipe
from raypipe.ops import pixel_cross_entropy
from raypipe.reports.pictures import draw_mask

SIDE = 96
CONFIDENT = 64
"""Of 255: what the masks are less sure of teaches nothing."""


class MaskedImages(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, SIDE, SIDE) in [0, 1] and class ids (SIDE, SIDE), 255 where the mask isn't sure."""

    def __init__(self, masks: raypipe.Masks) -> None:
        self.masks, self.ids = masks, masks.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        mask = self.masks[self.ids[number]]
        ids = np.where(mask.confidence >= CONFIDENT, mask.array, 255).astype(np.uint8)
        image = Image.fromarray(self.masks.image(mask.image_id)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        target = Image.fromarray(ids).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255, torch.from_numpy(np.array(target))


def small_network(num_classes: int) -> nn.Module:
    """Images (B, 3, H, W) to logits (B, 1 + num_classes, H, W)."""
    layers: list[nn.Module] = []
    for before, after, dilation in ((3, 32, 1), (32, 32, 2), (32, 32, 4), (32, 32, 8)):
        convolution = nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 1 + num_classes, 1))


def main() -> None:
    """Trains for some passes and draws what came out."""
    torch.manual_seed(0)
    run = raypipe.open_run(sys.argv[1] if len(sys.argv) > 1 else "demo/run/config.yaml")
    dataset = MaskedImages(run.masks)
    loader = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=2)
    network = small_network(len(run.classes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for epoch in range(5):
        losses = []
        for images, masks in loader:
            loss = pixel_cross_entropy(network(images), masks).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {np.mean(losses):.3f} over {len(dataset)} images")

    network.eval()
    rows = []
    for number in range(0, len(dataset), max(1, len(dataset) // 4)):
        image, mask = dataset[number]
        with torch.inference_mode():
            found = network(image[None])[0].argmax(dim=0).to(torch.uint8)
        pixels = (image * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        rows.append(np.hstack([pixels, draw_mask(pixels, mask.numpy()), draw_mask(pixels, found.numpy())]))
    Image.fromarray(np.vstack(rows[:4])).save("learned.png")
    print("learned.png: photograph, mask (white isn't sure), what the network makes of it")


if __name__ == "__main__":  # the loader's processes import this file
    main()
