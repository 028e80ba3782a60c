"""Generates a synthetic dataset with exact masks, on which a CAM alone is visibly incomplete.

An animal has a body and a head. The head is vivid and shows the class at a glance, the body by its texture and a paler
tint, so a classifier looks at heads first, and its CAM misses parts of the bodies. A body's two colours differ
strongly, and one of them is near the background's, so plain colours are a poor guide to what belongs together, and
textures a good one. Most animals are painted in the home of their class, so the surroundings hint at the class too.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe import storage
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.synthetic import textures
from raypipe.synthetic.saliency_errors import simulate_saliency
from raypipe.synthetic.textures import Map


@dataclass(frozen=True)
class Animal:
    """The properties that all animals of one class have."""

    name: str
    body: str
    """One of `textures.BODIES`."""
    emblem: str
    """Pattern of the head, one of `textures.EMBLEMS`."""
    hue: float
    """Hue of the head, 0..1."""
    home: str
    """Home: the background of most pictures of the class, one of `textures.BACKGROUNDS`."""


ANIMALS = (
    Animal("zebra", "stripes", "bullseye", 0 / 6, "grass"),
    Animal("frog", "mesh", "pinwheel", 3 / 6, "grass"),
    Animal("beetle", "checks", "cross", 1 / 6, "sand"),
    Animal("snake", "waves", "halves", 4 / 6, "sand"),
    Animal("ray", "dots", "bars", 2 / 6, "water"),
    Animal("shell", "rings", "spiral", 5 / 6, "water"),
)
CLASSES = tuple(animal.name for animal in ANIMALS)

AT_HOME = 0.9
"""Share of the pictures whose background is the home of their first animal."""
AREAS = {1: (0.16, 0.5), 2: (0.12, 0.28), 3: (0.09, 0.19), 4: (0.07, 0.14)}
"""Smallest and largest share of the image that one animal takes, by the number of animals."""
MIN_VISIBLE = 0.6
"""Share of an animal that must stay visible; an animal that would hide more of another is put elsewhere."""
MIN_VISIBLE_HEAD = 0.75
MIN_SIDE = 32
"""Smallest side in pixels that has room for an animal."""
NOISE = 0.035
"""Standard deviation of the sensor's noise; white is 1."""
JPEG_QUALITY = 92
_SALIENCY = 1
"""Separates saliency's random numbers from the picture's, so that the picture is the same with and without saliency."""


@dataclass(frozen=True)
class Scene:
    """One picture with its true mask and labels."""

    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    mask: NDArray[np.uint8]
    """(H, W) class ids, 1-based, in the order of `CLASSES`; 0 is background."""
    labels: tuple[str, ...]
    """Names of the classes in the mask, sorted by class id."""
    objects: NDArray[np.uint8]
    """(H, W) number of the visible animal, from 1; 0 is background."""


def generate(
    uri: str,
    *,
    num_images: int = 320,
    seed: int = 0,
    val_share: float = 0.25,
    sizes: tuple[int, int] = (96, 320),
    saliency_errors: float | None = None,
) -> Manifest:
    """Writes the dataset below a folder: `images/*.jpg`, `masks/*.png`, `manifest.parquet` (last).

    Image i depends on (seed, i, sizes) only. The file's URIs are relative to the manifest, those of the returned value
    absolute.

    Args:
        uri: URI of the folder.
        num_images: number of images.
        seed: seed of all random numbers.
        val_share: share of images in the split "val", spread evenly; the others are "train".
        sizes: smallest and largest side in pixels.
        saliency_errors: if given, saliency maps `saliency/*.png` are written too, with errors at this rate
            (`simulate_saliency`).

    Returns:
        The manifest as `read_manifest` returns it.

    Raises:
        ValueError: a number is impossible.
    """
    if num_images < 1 or not 0 <= val_share < 1 or not MIN_SIDE <= sizes[0] <= sizes[1]:
        raise ValueError(
            f"expected at least 1 image, 0 <= val_share < 1 and {MIN_SIDE} <= smallest <= largest side, "
            f"got {num_images}, {val_share} and {sizes}"
        )
    rows = []
    for index in range(num_images):
        scene = draw_scene(seed, index, sizes=sizes)
        image_id = f"synthetic_{index:05d}"
        image, mask = f"images/{image_id}.jpg", f"masks/{image_id}.png"
        storage.write_bytes_atomic(storage.join(uri, image), _encode_jpeg(scene.pixels))
        storage.write_bytes_atomic(storage.join(uri, mask), encode_png(scene.mask))
        # The integer part of i * share grows by one at every image of "val".
        split = "val" if int((index + 1) * val_share) > int(index * val_share) else "train"
        row = {"image_id": image_id, "image_uri": image, "labels": list(scene.labels), "split": split, "mask_uri": mask}
        if saliency_errors is not None:
            rng = np.random.default_rng((seed, index, _SALIENCY))
            saliency = simulate_saliency(scene.mask, scene.objects, rng, rate=saliency_errors)
            saliency_file = f"saliency/{image_id}.png"
            storage.write_bytes_atomic(storage.join(uri, saliency_file), encode_png(saliency))
            row["saliency_uri"] = saliency_file
        rows.append(row)
    manifest_uri = storage.join(uri, "manifest.parquet")
    write_manifest(Manifest.from_rows(rows, CLASSES), manifest_uri)
    return read_manifest(manifest_uri)


def draw_scene(seed: int, index: int, *, sizes: tuple[int, int] = (96, 320)) -> Scene:
    """Paints one picture: a background, 1 to 4 animals that may cover each other, light and noise."""
    rng = np.random.default_rng((seed, index))
    height, width = _draw_size(rng, sizes)
    num_animals = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.33, 0.17, 0.1]))
    class_ids = _draw_class_ids(rng, num_animals)
    home = ANIMALS[class_ids[0] - 1].home
    place = home if rng.random() < AT_HOME else str(rng.choice(list(textures.BACKGROUNDS)))
    ground = (textures.random_color(rng, value=(0.25, 0.5)), textures.random_color(rng, value=(0.65, 1.0)))
    canvas = textures.mix(*ground, textures.BACKGROUNDS[place](height, width, rng))
    owner = np.zeros((height, width), np.uint8)  # 1-based number of the visible animal
    head_owner = np.zeros((height, width), np.uint8)
    for number, class_id in enumerate(class_ids, start=1):
        _place_animal(
            canvas, owner, head_owner, rng, number=number, class_id=class_id, area=AREAS[num_animals], ground=ground
        )
    mask = np.array([0, *class_ids], np.uint8)[owner]
    canvas += NOISE * rng.standard_normal(canvas.shape, dtype=np.float32)
    pixels = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Scene(pixels, mask, tuple(CLASSES[class_id - 1] for class_id in np.unique(mask) if class_id), owner)


def _draw_size(rng: np.random.Generator, sizes: tuple[int, int]) -> tuple[int, int]:
    """Draws a size with a uniform longer side and an aspect ratio of up to 3 : 2, upright or landscape."""
    longer = int(rng.integers(sizes[0], sizes[1] + 1))
    shorter = max(sizes[0], int(longer * rng.uniform(2 / 3, 1)))
    return (longer, shorter) if rng.random() < 0.4 else (shorter, longer)


def _draw_class_ids(rng: np.random.Generator, num_animals: int) -> list[int]:
    """Draws the first class at random, and each further one as the same class, one of the same home, or at random."""
    first = int(rng.integers(len(ANIMALS)))
    neighbours = [i for i, animal in enumerate(ANIMALS) if animal.home == ANIMALS[first].home]
    indices = [first]
    for _ in range(num_animals - 1):
        company = rng.random()
        indices.append(
            first
            if company < 0.25
            else int(rng.choice(neighbours))
            if company < 0.5
            else int(rng.integers(len(ANIMALS)))
        )
    return [index + 1 for index in indices]


def _place_animal(
    canvas: Map,
    owner: NDArray[np.uint8],
    head_owner: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    number: int,
    class_id: int,
    area: tuple[float, float],
    ground: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Paints one animal where it doesn't hide another too much; without such a place it paints none."""
    height, width = owner.shape
    outline = _Outline.draw(rng, pixels=float(rng.uniform(*area)) * height * width)
    for _ in range(12):
        margin = 0.55 * outline.reach
        row = float(rng.uniform(min(margin, height / 2), max(height - margin, height / 2)))
        column = float(rng.uniform(min(margin, width / 2), max(width - margin, width / 2)))
        window = outline.window(row, column, height, width)
        u, v = outline.coordinates(row, column, window)
        body = outline.coverage(u, v)
        inside = body > 0.5
        if _leaves_enough(owner, window, inside, MIN_VISIBLE) and _leaves_enough(
            head_owner, window, inside, MIN_VISIBLE_HEAD
        ):
            break
    else:
        return
    animal = ANIMALS[class_id - 1]
    head_u, head_v = u - 0.42 * outline.axes[0], v
    radius = max(9.0, 0.42 * outline.axes[1])
    head = np.clip(radius - np.hypot(head_u, head_v) + 0.5, 0, 1) * body
    patch = canvas[window]
    patch += (_paint_body(rng, animal, u, v, ground) - patch) * body[..., None]
    vivid = textures.hue_color(animal.hue, rng, saturation=(0.8, 1), value=(0.8, 1))
    partner = np.float32(0.05 + 0.9 * (class_id % 2)) * np.ones(3, np.float32)
    painted = textures.mix(partner, vivid, textures.emblem(animal.emblem, head_u, head_v, radius))
    patch += (painted - patch) * head[..., None]
    owner[window][inside] = number
    head_owner[window][inside] = 0
    head_owner[window][head > 0.5] = number


def _paint_body(
    rng: np.random.Generator, animal: Animal, u: Map, v: Map, ground: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> Map:
    """Paints two colours in the animal's texture: one near the background's, and a tint of the animal's own hue."""
    shared = int(rng.integers(2))
    near = np.clip(ground[shared] + rng.normal(0, 0.05, 3).astype(np.float32), 0, 1)
    value = ((0.75, 1.0), (0.3, 0.55))[shared]
    other = textures.hue_color(animal.hue, rng, saturation=(0.4, 0.75), value=value)
    angle = float(rng.uniform(0, textures.TAU))
    across = u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle))
    along = v * np.float32(np.cos(angle)) - u * np.float32(np.sin(angle))
    return textures.mix(near, other, textures.BODIES[animal.body](across, along, float(rng.uniform(11, 20))))


def _leaves_enough(
    owner: NDArray[np.uint8], window: tuple[slice, slice], inside: NDArray[np.bool_], share: float
) -> bool:
    before = np.bincount(owner.ravel(), minlength=6)[1:]
    hidden = np.bincount(owner[window][inside], minlength=6)[1:]
    return bool(np.all(before - hidden >= share * before))


@dataclass(frozen=True)
class _Outline:
    """A stretched, rotated outline around a centre."""

    radii: Map
    """Radius at evenly spaced angles, before stretching."""
    axes: tuple[float, float]
    """Half axes in pixels, longer first."""
    angle: float
    reach: float
    """Largest distance in pixels of the outline from the centre."""

    @classmethod
    def draw(cls, rng: np.random.Generator, *, pixels: float) -> "_Outline":
        """Draws a random outline around an area of the given number of pixels."""
        theta = np.linspace(0, textures.TAU, 361, dtype=np.float32)
        radii = textures.SHAPES[int(rng.integers(len(textures.SHAPES)))](theta, rng)
        aspect = float(rng.uniform(0.55, 0.95))
        longer = float(np.sqrt(pixels / (np.pi * np.mean(radii[:-1] ** 2) * aspect)))
        return cls(radii, (longer, longer * aspect), float(rng.uniform(0, textures.TAU)), longer * float(radii.max()))

    def window(self, row: float, column: float, height: int, width: int) -> tuple[slice, slice]:
        """Returns the part of the image that the outline can touch."""
        reach = self.reach + 2
        return (
            slice(max(0, int(row - reach)), min(height, int(row + reach) + 1)),
            slice(max(0, int(column - reach)), min(width, int(column + reach) + 1)),
        )

    def coordinates(self, row: float, column: float, window: tuple[slice, slice]) -> tuple[Map, Map]:
        """Returns the offsets from the centre in pixels, along the longer and along the shorter axis."""
        dy = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] - np.float32(row)
        dx = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None] - np.float32(column)
        cosine, sine = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return dx * cosine + dy * sine, dy * cosine - dx * sine

    def coverage(self, u: Map, v: Map) -> Map:
        """Returns 1 inside and 0 outside, with a transition of about one pixel."""
        theta = np.arctan2(v / self.axes[1], u / self.axes[0])
        rho = np.hypot(u / self.axes[0], v / self.axes[1])
        radius = np.interp(theta % textures.TAU, np.linspace(0, textures.TAU, 361), self.radii).astype(np.float32)
        return np.asarray(np.clip((radius - rho) * np.float32(self.axes[1]) + 0.5, 0, 1))


def _encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
