"""Finds classes that appear together more often than by chance, from image-level labels.

A classifier that learns from labels alone can't tell two classes apart that always appear together: it may recognise
either by the other's pixels. The labels don't show what is no class at all (the rails below a train, the water around
a boat).

Conventions. N images, C classes; `counts[a, b]` is the number of images that are labelled with both a and b, and
`counts[a, a]` that of the images with a.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

MIN_IMAGES = 5
"""Fewest images with both classes that count as evidence."""

MIN_DEVIATION = 3.0
"""Standard deviations above chance from which a pair counts; by chance, one of 700 pairs reaches it."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two classes that appear together, as indices in the order of the classes; `first` is the rarer one."""

    first: int
    second: int
    num_both: int
    num_first: int
    num_second: int
    share: float
    """P(second | first): share of the images with the rarer class that have the other too."""
    lift: float
    """P(both) / (P(first) P(second)): 1 is chance."""
    deviation: float
    """Number of standard deviations above chance."""


def label_counts(present: Bool[np.ndarray, "images classes"]) -> Int64[np.ndarray, "classes classes"]:
    """Counts the images with each pair of classes; counts of parts add up.

    Args:
        present: True if the image has the label.

    Returns:
        Symmetric counts, with the images of each class on the diagonal.
    """
    ones = present.astype(np.float32)  # exact up to 2^24 images, and much faster than integers
    return (ones.T @ ones).round().astype(np.int64)


def frequent_pairs(counts: Int64[np.ndarray, "classes classes"], *, num_images: int) -> list[Pair]:
    """Finds the pairs that appear together more often than independent labels would.

        E_ab = n_a n_b / N,    deviation = (n_ab - E_ab) / sqrt(E_ab (1 - n_a / N) (1 - n_b / N))

    Args:
        counts: result of `label_counts`, or a sum of such results.
        num_images: N, including the images without a label.

    Returns:
        Pairs with at least `MIN_IMAGES` images and `MIN_DEVIATION`, those with the largest share first.

    Raises:
        ValueError: the counts are impossible.

    Source: the deviation is the adjusted residual of a 2 x 2 table (Haberman 1973).
    """
    single = np.diagonal(counts)
    if counts.size and (single.max() > num_images or (counts > np.minimum(single[:, None], single)).any()):
        raise ValueError(
            f"impossible counts: expected counts[a, b] <= counts[a, a] <= {num_images} images for all a, b"
        )
    pairs = []
    for a, b in np.argwhere(np.triu(counts >= MIN_IMAGES, k=1)).tolist():
        first, second = sorted((a, b), key=lambda index: (int(single[index]), index))
        both, num_first, num_second = int(counts[a, b]), int(single[first]), int(single[second])
        if num_second == num_images:
            continue  # a class of every image appears together with all others
        expected = num_first * num_second / num_images
        spread = np.sqrt(expected * (1 - num_first / num_images) * (1 - num_second / num_images))
        deviation = float((both - expected) / spread)
        if deviation >= MIN_DEVIATION:
            pairs.append(
                Pair(
                    first=first,
                    second=second,
                    num_both=both,
                    num_first=num_first,
                    num_second=num_second,
                    share=both / num_first,
                    lift=both / expected,
                    deviation=deviation,
                )
            )
    return sorted(pairs, key=lambda pair: (-pair.share, -pair.lift, pair.first, pair.second))
