"""Textures are maps in [0, 1] of the right size; shapes and colours keep their ranges."""

import numpy as np
import pytest

from raypipe.synthetic import textures


@pytest.mark.parametrize("name", textures.BACKGROUNDS)
def test_backgrounds(name: str) -> None:
    texture = textures.BACKGROUNDS[name](61, 97, np.random.default_rng(0))
    assert texture.shape == (61, 97)
    assert texture.dtype == np.float32
    assert 0 <= texture.min() < 0.3 < 0.7 < texture.max() <= 1


@pytest.mark.parametrize("name", textures.BODIES)
def test_bodies_have_two_levels_and_their_period(name: str) -> None:
    v, u = np.mgrid[:48, :48].astype(np.float32)
    texture = textures.BODIES[name](u, v, 12.0)
    assert texture.shape == (48, 48)
    assert ((texture < 0.05) | (texture > 0.95)).mean() > 0.5
    # Along the first row rings repeat like the others; off it their centre is elsewhere.
    np.testing.assert_allclose(texture[0, :36], texture[0, 12:], atol=1e-3)


def test_emblems_differ() -> None:
    v, u = np.mgrid[-20:21, -20:21].astype(np.float32)
    inside = np.hypot(u, v) < 20
    maps = [textures.emblem(kind, u, v, 20.0)[inside] for kind in textures.EMBLEMS]
    for i, first in enumerate(maps):
        assert 0.1 < first.mean() < 0.9
        for second in maps[i + 1 :]:
            # Not equal, and not each other's negative either.
            assert 0.15 < np.abs(first - second).mean() < 0.85


@pytest.mark.parametrize("shape", textures.SHAPES)
def test_shapes_are_closed_and_solid(shape: object) -> None:
    theta = np.linspace(0, textures.TAU, 361, dtype=np.float32)
    for seed in range(20):
        radius = shape(theta, np.random.default_rng(seed))  # type: ignore[operator]
        assert radius[0] == pytest.approx(radius[-1], abs=1e-3)
        assert 0.2 < radius.min() <= radius.max() < 2.5


def test_noise_has_its_scale() -> None:
    noise = textures.smooth_noise(200, 200, (20, 5), np.random.default_rng(0))
    assert noise.std() == pytest.approx(0.8, abs=0.25)
    down, right = np.abs(np.diff(noise, axis=0)).mean(), np.abs(np.diff(noise, axis=1)).mean()
    assert right > 2.5 * down
