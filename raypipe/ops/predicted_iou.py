"""Predicts the IoU of one image's mask without a true mask.

    predicted IoU = b + w_m * margin + w_s * eta^2 + w_k / K,   cut to [0, 1]

with the mean margin of the walked scores, the separation eta^2 of the features by the mask (`raypipe.ops.separation`)
and the number K of classes that the image is labelled with. IoU is the mean over the background and the classes in mask
or truth. The prediction serves to rank images. Its level differs between datasets; a few true masks correct that.

Source: a least-squares fit on synthetic images and one half of VOC's (benchmarks/sweep.md).
"""

MARGIN_WEIGHT = 0.24
SEPARATION_WEIGHT = 0.34
SINGLE_CLASS_WEIGHT = 0.16
INTERCEPT = 0.19


def predicted_iou(*, margin: float, separation: float, num_classes: int) -> float:
    """Returns the predicted mean IoU of one mask.

    Args:
        margin: mean over the image of the best minus the second-best score, with scores that sum to 1; in [0, 1].
        separation: eta^2 of the features, in [0, 1].
        num_classes: K, the number of the image's labels. Without labels the mask is rightly all background: 1.

    Returns:
        A value in [0, 1].
    """
    if num_classes == 0:
        return 1.0
    value = INTERCEPT + MARGIN_WEIGHT * margin + SEPARATION_WEIGHT * separation + SINGLE_CLASS_WEIGHT / num_classes
    return min(1.0, max(0.0, value))
