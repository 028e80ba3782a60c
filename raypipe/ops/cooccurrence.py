"""Which classes appear together more often than by chance, counted from image-level labels.

A classifier that learns from labels alone can't tell two classes apart that always come together: it may find either by
the other's pixels. Whatever is no class at all (the rails below a train, the water around a boat) is out of its sight.

Conventions. N images, C classes; `counts[a, b]` images that are labelled with both, the diagonal those with a.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

MIN_IMAGES = 5
"""Fewer images with both say nothing."""

MIN_DEVIATION = 3.0
"""Standard deviations above chance from which a pair counts: one of 700 pairs reaches it by chance."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two classes that come together; `first` is the rarer one, by their places in the classes' order."""

    first: int
    second: int
    num_both: int
    num_first: int
    num_second: int
    share: float
    """P(second | first): of the images with the rarer class, those that have the other too."""
    lift: float
    """P(both) / (P(first) P(second)): 1 is chance."""
    deviation: float
    """Standard deviations above what chance gives."""


def label_counts(present: Bool[np.ndarray, "images classes"]) -> Int64[np.ndarray, "classes classes"]:
    """Images with both classes; counts of parts add up.

    Args:
        present: True where an image has the label.

    Returns:
        Symmetric counts, the images of each class on the diagonal.
    """
    ones = present.astype(np.float32)  # exact up to 2^24 images, and much faster than integers
    return (ones.T @ ones).round().astype(np.int64)


def frequent_pairs(counts: Int64[np.ndarray, "classes classes"], *, num_images: int) -> list[Pair]:
    """Pairs that come together more often than independent labels would.

        E_ab = n_a n_b / N,    deviation = (n_ab - E_ab) / sqrt(E_ab (1 - n_a / N) (1 - n_b / N))

    Args:
        counts: as `label_counts` gives them, or a sum of such.
        num_images: N, with those that have no label.

    Returns:
        Pairs of at least `MIN_IMAGES` images and `MIN_DEVIATION`, those with the largest share first.

    Raises:
        ValueError: the counts can't be.

    Source: the deviation is the adjusted residual of a 2 x 2 table (Haberman 1973).
    """
    single = np.diagonal(counts)
    if counts.size and (single.max() > num_images or (counts > np.minimum(single[:, None], single)).any()):
        raise ValueError(
            f"counts don't fit {num_images} images: needed are counts[a, b] <= counts[a, a] <= num_images for all a, b"
        )
    pairs = []
    for a, b in np.argwhere(np.triu(counts >= MIN_IMAGES, k=1)).tolist():
        first, second = sorted((a, b), key=lambda index: (int(single[index]), index))
        both, num_first, num_second = int(counts[a, b]), int(single[first]), int(single[second])
        if num_second == num_images:
            continue  # what is everywhere goes with everything
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
