import numpy as np
import pytest

from raypipe.ops.dense_crf import dense_crf_many


def dense_crf(image: np.ndarray, scores: np.ndarray, **knobs: float) -> np.ndarray:
    (refined,) = dense_crf_many(image, [scores], **knobs)
    return refined


def two_halves(height: int = 20, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """An image of two colours, and noisy scores that know the halves roughly."""
    rng = np.random.default_rng(0)
    right = np.arange(width) >= width // 2
    image = np.where(right[None, :, None], 220, 30).astype(np.uint8).repeat(height, 0).repeat(3, 2)
    object_score = np.clip(0.5 + 0.2 * (right[None] - 0.5) + rng.normal(0, 0.2, (height, width)), 0, 1)
    return image, np.stack([1 - object_score, object_score])


def test_follows_the_colour_edge() -> None:
    image, scores = two_halves()
    refined = dense_crf(image, scores)
    right = np.arange(image.shape[1]) >= image.shape[1] // 2
    before = (scores.argmax(0) == right).mean()
    after = (refined.argmax(0) == right).mean()
    assert before < 0.85
    assert after == 1


def test_convention_probabilities_over_labels() -> None:
    image, scores = two_halves()
    refined = dense_crf(image, scores)
    assert refined.dtype == np.float32
    assert refined.shape == scores.shape
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


def test_without_iterations_only_the_scores_count() -> None:
    """Q ~ exp(-unary) = the scores divided by their sum over the labels."""
    image, scores = two_halves()
    scores = scores * np.array([0.3, 1.0])[:, None, None] + 0.01
    np.testing.assert_allclose(dense_crf(image, scores, num_iters=0), scores / scores.sum(0), atol=1e-5)


def test_many_equals_one_by_one() -> None:
    image, scores = two_halves()
    stacks = [scores, scores[::-1], scores**2]
    for together, alone in zip(dense_crf_many(image, stacks), [dense_crf(image, s) for s in stacks], strict=True):
        np.testing.assert_array_equal(together, alone)


def test_any_memory_layout() -> None:
    image, scores = two_halves()
    expected = dense_crf(image, scores)
    mirrored = dense_crf(image[:, ::-1][:, ::-1], np.asfortranarray(scores))
    np.testing.assert_array_equal(mirrored, expected)
    np.testing.assert_allclose(dense_crf(image, scores.astype(np.float32)), expected, atol=1e-4)


def test_knobs_change_the_result() -> None:
    image, scores = two_halves()
    plain = dense_crf(image, scores, compat_bilateral=0, compat_gaussian=0)
    np.testing.assert_allclose(plain, scores / scores.sum(0), atol=1e-3)
    for knob in ({"sxy_gaussian": 1}, {"sxy_bilateral": 5}, {"srgb": 200}, {"num_iters": 1}, {"compat_gaussian": 1}):
        assert not np.allclose(dense_crf(image, scores, **knob), dense_crf(image, scores))


def test_one_label_is_certain() -> None:
    image, scores = two_halves()
    assert (dense_crf(image, scores[:1]) == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 1)])
def test_tiny_images(size: tuple[int, int]) -> None:
    refined = dense_crf(np.zeros((*size, 3), np.uint8), np.full((3, *size), 0.2))
    np.testing.assert_allclose(refined, 1 / 3, atol=1e-5)


def test_no_stacks() -> None:
    assert dense_crf_many(two_halves()[0], []) == []


def test_sizes_differ() -> None:
    image, scores = two_halves()
    with pytest.raises(ValueError, match=r"needs \(2, 20, 24\)"):
        dense_crf(image, scores[:, 1:])


def test_stacks_differ() -> None:
    image, scores = two_halves()
    with pytest.raises(ValueError, match="same number of labels"):
        dense_crf_many(image, [scores, scores[:1]])


def test_no_label() -> None:
    image, scores = two_halves()
    with pytest.raises(ValueError, match="at least one label"):
        dense_crf(image, scores[:0])


def test_scores_not_finite() -> None:
    image, scores = two_halves()
    with pytest.raises(ValueError, match="expected finite scores"):
        dense_crf(image, scores * np.nan)
