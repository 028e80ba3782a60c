import numpy as np
import pytest

from raypipe.synthetic.generate import Scene, draw_scene
from raypipe.synthetic.saliency_errors import MIN_FALSE_SHARE, simulate_saliency


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(1, index, sizes=(64, 96)) for index in range(80)]


def simulate(scene: Scene, seed: int, rate: float) -> np.ndarray:
    return simulate_saliency(scene.mask, scene.objects, np.random.default_rng(seed), rate=rate)


def errors(scene: Scene, saliency: np.ndarray) -> tuple[bool, bool, bool]:
    """Whether a class, an animal of a class that is salient otherwise, and a false object are missing or there."""
    salient = saliency > 0
    missing = [n for n in np.unique(scene.objects) if n and not salient[scene.objects == n].any()]
    lost = [c for c in np.unique(scene.mask) if c and not salient[scene.mask == c].any()]
    return bool(lost), bool(missing) and not lost, bool(salient[scene.mask == 0].any())


def test_without_errors_the_animals_are_salient(scenes: list[Scene]) -> None:
    for seed, scene in enumerate(scenes):
        np.testing.assert_array_equal(simulate(scene, seed, 0), np.where(scene.mask > 0, 255, 0))


def test_errors_are_whole_objects_and_classes(scenes: list[Scene]) -> None:
    for seed, scene in enumerate(scenes):
        salient = simulate(scene, seed, 1) > 0
        for number in np.unique(scene.objects[scene.objects > 0]):
            assert len(np.unique(salient[scene.objects == number])) == 1
        if len(scene.labels) > 1:
            assert any(not salient[scene.mask == c].any() for c in np.unique(scene.mask) if c)


def test_an_animal_alone_is_never_missing(scenes: list[Scene]) -> None:
    for seed, scene in enumerate(scenes):
        if scene.objects.max() == 1:
            assert (simulate(scene, seed, 1)[scene.mask > 0] == 255).all()


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_rates_are_those_asked_for(scenes: list[Scene], rate: float) -> None:
    several_classes = [scene for scene in scenes if len(scene.labels) > 1]
    one_class = [scene for scene in scenes if len(scene.labels) == 1 and len(np.unique(scene.objects)) > 2]
    found: dict[str, list[bool]] = {"class": [], "object": [], "false": []}
    for seed in range(20):
        for index, scene in enumerate(scenes[:40]):
            found["false"].append(errors(scene, simulate(scene, 1000 * seed + index, rate))[2])
        for index, scene in enumerate(one_class):
            found["object"].append(errors(scene, simulate(scene, 1000 * seed + index, rate))[1])
    for index, scene in enumerate(several_classes):
        for seed in range(10):
            rng = np.random.default_rng(1000 * seed + index)
            missing = simulate_saliency(scene.mask, scene.mask, rng, rate=rate)  # each class one object
            found["class"].append(errors(scene, missing)[0])
    assert np.mean(found["false"]) == pytest.approx(rate, abs=0.08)
    assert np.mean(found["object"]) == pytest.approx(rate, abs=0.12)
    # Each class is one object here: either error takes one away.
    assert np.mean(found["class"]) == pytest.approx(1 - (1 - rate) ** 2, abs=0.08)


def test_errors_of_a_lower_rate_are_among_those_of_a_higher_one(scenes: list[Scene]) -> None:
    for seed, scene in enumerate(scenes):
        wrong = [simulate(scene, seed, rate) != np.where(scene.mask > 0, 255, 0) for rate in (0.2, 0.4, 0.8)]
        assert not (wrong[0] & ~wrong[1]).any()
        assert not (wrong[1] & ~wrong[2]).any()


def test_a_false_object_lies_on_background_and_can_be_seen() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 1
    for seed in range(20):
        false = (simulate_saliency(mask, mask, np.random.default_rng(seed), rate=1) > 0) & (mask == 0)
        assert MIN_FALSE_SHARE <= false.mean() <= 0.13


def test_no_background_no_false_object() -> None:
    full = np.ones((40, 40), np.uint8)
    assert (simulate_saliency(full, full, np.random.default_rng(0), rate=1) == 255).all()


def test_a_rate_is_a_probability() -> None:
    with pytest.raises(ValueError, match="rate of saliency errors from 0 to 1"):
        simulate_saliency(np.ones((4, 4), np.uint8), np.ones((4, 4), np.uint8), np.random.default_rng(0), rate=1.5)
