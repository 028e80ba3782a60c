import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.ops.chebyshev import chebyshev_coefficients, chebyshev_vectors


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3, 8, 31, 256])
def test_closed_form(num_steps: int) -> None:
    """c_k = 2^(1-t) binom(t, (t-k)/2), half of it at k = 0, in exact arithmetic."""
    exact = [
        Fraction((1 if k == 0 else 2) * math.comb(num_steps, (num_steps - k) // 2), 2**num_steps)
        if (num_steps - k) % 2 == 0
        else Fraction(0)
        for k in range(num_steps + 1)
    ]
    assert sum(exact) == 1
    ours = chebyshev_coefficients(num_steps, max_tail=1e-30)
    np.testing.assert_allclose(ours, [float(c) for c in exact[: len(ours)]], rtol=1e-12)
    assert float(sum(exact[len(ours) :])) <= 1e-28


def test_hand_worked() -> None:
    assert chebyshev_coefficients(3, max_tail=1e-9).tolist() == pytest.approx([0, 3 / 4, 0, 1 / 4])
    assert chebyshev_coefficients(4, max_tail=1e-9).tolist() == pytest.approx([3 / 8, 0, 1 / 2, 0, 1 / 8])
    assert chebyshev_coefficients(4, max_tail=0.2).tolist() == pytest.approx([3 / 7, 0, 4 / 7])


def test_degree_is_the_smallest_within_the_tail() -> None:
    full = chebyshev_coefficients(256, max_tail=1e-30)
    for max_tail in (1e-2, 8.1e-6, 1e-8):
        degree = len(chebyshev_coefficients(256, max_tail=max_tail)) - 1
        assert full[degree + 1 :].sum() <= max_tail < full[degree - 1 :].sum()
    assert len(chebyshev_coefficients(256, max_tail=8.1e-6)) - 1 == 70


@pytest.mark.parametrize("num_steps", [10**3, 10**5, 10**7])
def test_stable_for_many_steps(num_steps: int) -> None:
    coefficients = chebyshev_coefficients(num_steps, max_tail=1e-12)
    assert coefficients.sum() == pytest.approx(1, abs=1e-12)
    assert len(coefficients) < math.sqrt(2 * num_steps * math.log(2e12)) + 2
    for x in (1.0, 0.9999, 1 - 1 / num_steps):
        approximation = np.polynomial.chebyshev.chebval(x, coefficients)
        assert approximation == pytest.approx(x**num_steps, abs=1e-10)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 600), st.floats(1e-12, 0.5))
def test_polynomial_error_is_at_most_twice_the_tail(num_steps: int, max_tail: float) -> None:
    x = np.linspace(-1, 1, 401)
    coefficients = chebyshev_coefficients(num_steps, max_tail=max_tail)
    error = np.abs(np.polynomial.chebyshev.chebval(x, coefficients) - x**num_steps).max()
    assert error <= 2 * max_tail + 1e-12


def test_small_numbers_of_steps_need_no_more_products() -> None:
    assert len(chebyshev_coefficients(5, max_tail=1e-9)) - 1 == 5


def test_vectors_are_the_polynomials_of_the_matrix() -> None:
    """T_0 .. T_3 of a symmetric matrix, and no product more than they need."""
    matrix = torch.tensor([[0.3, 0.2], [0.2, -0.5]], dtype=torch.float64)
    start = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    products = 0

    def twice_s(vector: torch.Tensor) -> torch.Tensor:
        nonlocal products
        products += 1
        return 2 * vector @ matrix

    vectors = list(chebyshev_vectors(twice_s, start, 4))
    identity = torch.eye(2, dtype=torch.float64)
    polynomials = [
        identity,
        matrix,
        2 * matrix @ matrix - identity,
        4 * matrix @ matrix @ matrix - 3 * matrix,
    ]
    assert products == 3
    for vector, polynomial in zip(vectors, polynomials, strict=True):
        torch.testing.assert_close(vector, start @ polynomial)
