"""Procedural textures, shapes and colours of the synthetic dataset.

Conventions: coordinates (u, v) and periods are in pixels. A texture is a map in [0, 1], which mixes two colours.
All maps are float32.
"""

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Map = NDArray[np.floating[Any]]
Pattern = Callable[[Map, Map, float], Map]

TAU = float(2 * np.pi)


def smooth_noise(height: int, width: int, cell: tuple[float, float], rng: np.random.Generator) -> Map:
    """Returns interpolated noise, Gaussian of unit variance at knots that lie `cell` = (rows, columns) pixels apart."""
    knots = rng.standard_normal((int(height / cell[0]) + 3, int(width / cell[1]) + 3), dtype=np.float32)
    box = (1.0, 1.0, 1 + width / cell[1], 1 + height / cell[0])
    return np.asarray(Image.fromarray(knots).resize((width, height), Image.Resampling.BICUBIC, box=box))


def grass(height: int, width: int, rng: np.random.Generator) -> Map:
    """Upright blades."""
    blades = smooth_noise(height, width, (11, 2.2), rng)
    return _unit(0.5 + 0.22 * blades + 0.1 * smooth_noise(height, width, (30, 30), rng))


def sand(height: int, width: int, rng: np.random.Generator) -> Map:
    """Fine grain on soft dunes."""
    grain = rng.standard_normal((height, width), dtype=np.float32)
    return _unit(0.5 + 0.13 * grain + 0.16 * smooth_noise(height, width, (34, 48), rng))


def sky(height: int, width: int, rng: np.random.Generator) -> Map:
    """Soft clouds."""
    return _unit(
        0.5 + 0.3 * smooth_noise(height, width, (26, 46), rng) + 0.07 * smooth_noise(height, width, (7, 12), rng)
    )


def water(height: int, width: int, rng: np.random.Generator) -> Map:
    """Ragged horizontal ripples."""
    rows = np.arange(height, dtype=np.float32)[:, None]
    phase = rows * (TAU / 9) + 2.4 * smooth_noise(height, width, (16, 24), rng)
    return _unit(0.5 + 0.22 * np.sin(phase) + 0.12 * smooth_noise(height, width, (4, 14), rng))


BACKGROUNDS: dict[str, Callable[[int, int, np.random.Generator], Map]] = {
    paint.__name__: paint for paint in (grass, sand, sky, water)
}


def stripes(u: Map, _v: Map, period: float) -> Map:
    """Straight stripes across u."""
    return _sharp(np.sin(u * (TAU / period)))


def checks(u: Map, v: Map, period: float) -> Map:
    """A chessboard."""
    return _sharp(1.6 * np.sin(u * (TAU / period)) * np.sin(v * (TAU / period)))


def dots(u: Map, v: Map, period: float) -> Map:
    """Round dots on a square lattice."""
    return _sharp(np.cos(u * (TAU / period)) + np.cos(v * (TAU / period)) - 0.35)


def waves(u: Map, v: Map, period: float) -> Map:
    """Zigzag stripes."""
    return _sharp(np.sin(u * (TAU / period) + 1.9 * np.sin(v * (TAU / (1.5 * period)))))


def mesh(u: Map, v: Map, period: float) -> Map:
    """Two crossing families of lines."""
    return _sharp(np.maximum(np.cos(u * (TAU / period)), np.cos(v * (TAU / period))) - 0.7)


def rings(u: Map, v: Map, period: float) -> Map:
    """Rings around (0, 0)."""
    return _sharp(np.cos(np.hypot(u, v) * (TAU / period)))


BODIES: dict[str, Pattern] = {paint.__name__: paint for paint in (stripes, checks, dots, waves, mesh, rings)}


def emblem(kind: str, u: Map, v: Map, radius: float) -> Map:
    """Returns the pattern of a head of the given radius around (0, 0).

    Raises:
        KeyError: there is no such kind.
    """
    rho, theta = np.hypot(u, v) / radius, np.arctan2(v, u)
    return _sharp(_EMBLEMS[kind](u / radius, v / radius, rho, theta))


_EMBLEMS: dict[str, Callable[[Map, Map, Map, Map], Map]] = {
    "bullseye": lambda _u, _v, rho, _theta: np.cos(rho * (TAU * 1.25)),
    "pinwheel": lambda _u, _v, _rho, theta: np.sin(3 * theta),
    "cross": lambda u, v, _rho, _theta: 5 * (0.27 - np.minimum(np.abs(u), np.abs(v))),
    "halves": lambda u, _v, _rho, _theta: 5 * u,
    "bars": lambda _u, v, _rho, _theta: np.sin(v * (TAU * 1.25)),
    "spiral": lambda _u, _v, rho, theta: np.sin(theta + rho * (TAU * 1.1)),
}
EMBLEMS = tuple(_EMBLEMS)


def ellipse(theta: Map, _rng: np.random.Generator) -> Map:
    """Radius 1 everywhere."""
    return np.ones_like(theta)


def polygon(theta: Map, rng: np.random.Generator) -> Map:
    """A polygon of 3 to 6 rounded corners."""
    sector = TAU / int(rng.integers(3, 7))
    angle = np.mod(theta + float(rng.uniform(0, TAU)), sector) - sector / 2
    return np.asarray((np.cos(sector / 2) / np.cos(angle)) ** 0.75, np.float32)


def star(theta: Map, rng: np.random.Generator) -> Map:
    """4 to 6 soft arms."""
    return np.asarray(1 + 0.24 * np.cos(int(rng.integers(4, 7)) * theta + float(rng.uniform(0, TAU))))


def blob(theta: Map, rng: np.random.Generator) -> Map:
    """A smooth random outline."""
    radius = np.ones_like(theta)
    for frequency in (2, 3, 4, 5):
        radius += float(rng.normal(0, 0.28 / frequency)) * np.cos(frequency * theta + float(rng.uniform(0, TAU)))
    return np.maximum(radius, 0.35)


SHAPES = (ellipse, polygon, star, blob)


def random_color(rng: np.random.Generator, *, value: tuple[float, float]) -> NDArray[np.float32]:
    """Draws a pale colour (3,) in [0, 1] of any hue, with a brightness in the given range."""
    return _rgb(float(rng.random()), float(rng.uniform(0.05, 0.45)), float(rng.uniform(*value)))


def hue_color(
    hue: float, rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> NDArray[np.float32]:
    """Draws a colour (3,) in [0, 1] close to a hue, with saturation and brightness in the given ranges."""
    return _rgb((hue + float(rng.normal(0, 0.02))) % 1, float(rng.uniform(*saturation)), float(rng.uniform(*value)))


def mix(low: NDArray[np.float32], high: NDArray[np.float32], texture: Map) -> Map:
    """Mixes two colours by a texture (H, W) to colours (H, W, 3)."""
    return low + (high - low) * texture[..., None]


def _rgb(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def _unit(values: Map) -> Map:
    return np.clip(values, 0, 1)


def _sharp(wave: Map) -> Map:
    """Turns a wave around 0 into two levels with a soft edge."""
    return _unit(0.5 + 2.5 * wave)
