"""Predicts the IoU of one image's mask without a true mask.

    predicted IoU = s * v + (1 - s) * w_0 / (K + 1)
    v = b + w_m * margin + w_s * eta^2 + w_k / K + w_b * max(0, border - 1/2),   cut to [0, 1]

with the mean margin of the walked scores, the separation eta^2 of the features by the mask (`raypipe.ops.separation`),
the number K of classes that the image is labelled with, and the share of the border that objects cover
(`raypipe.ops.floods`): where it is more than a half, the mask has probably flooded the image. IoU is the mean over the
background and the classes in mask or truth. The prediction serves to rank images. Its level differs between datasets; a
few true masks correct that.

Margin and separation say how sure and how compact a mask is, not that it lies on its object. So they count by what the
classifier knows of the image's classes: s is 1 from a skill (`raypipe.ops.average_precision`) of one half on, as the
classifiers had whose masks were fitted, and 0 where it knows nothing. Such a mask has the IoU of some background.

Source: a least-squares fit on synthetic images and one half of VOC's (benchmarks/sweep.md); w_0 is measured with a
classifier that has learned nothing (benchmarks/small_sets.md).
"""

MARGIN_WEIGHT = 0.06
SEPARATION_WEIGHT = 0.32
SINGLE_CLASS_WEIGHT = 0.20
INTERCEPT = 0.33
BORDER_WEIGHT = -1.04
FREE_BORDER = 0.5
"""Share of the border that objects may cover without being a flood."""
UNKNOWING_WEIGHT = 0.8
"""IoU of the background in masks of a classifier that knows nothing; their objects have next to none."""
ENOUGH_SKILL = 0.5


def predicted_iou(
    *, margin: float, separation: float, border: float, num_classes: int, skill: float | None = None
) -> float:
    """Returns the predicted mean IoU of one mask.

    Args:
        margin: mean over the image of the best minus the second-best score, with scores that sum to 1; in [0, 1].
        separation: eta^2 of the features, in [0, 1].
        border: share of the border that objects cover, in [0, 1].
        num_classes: K, the number of the image's labels. Without labels the mask is rightly all background: 1.
        skill: what the classifier knows of these classes, in [0, 1]; None where nobody has measured it, and it is taken
            for enough.

    Returns:
        A value in [0, 1].
    """
    if num_classes == 0:
        return 1.0
    value = INTERCEPT + MARGIN_WEIGHT * margin + SEPARATION_WEIGHT * separation + SINGLE_CLASS_WEIGHT / num_classes
    value += BORDER_WEIGHT * max(0.0, border - FREE_BORDER)
    trust = 1.0 if skill is None else min(1.0, skill / ENOUGH_SKILL)
    return trust * min(1.0, max(0.0, value)) + (1 - trust) * UNKNOWING_WEIGHT / (num_classes + 1)
