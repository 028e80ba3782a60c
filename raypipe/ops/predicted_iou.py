"""Predicted IoU: how good one image's mask probably is, from what is known without truth.

    predicted IoU = b + w_m * margin + w_s * eta^2 + w_k / K,   cut to [0, 1]

with the mean margin of the walked scores, the separation eta^2 of the features by the mask (`raypipe.ops.separation`)
and the number K of classes that the image is labelled with. IoU is the mean over the background and the classes in mask
or truth. The order of images is what it is good for; its level moves with the dataset, which a few true masks mend.

Source: a least-squares fit on synthetic images and one half of VOC's (benchmarks/sweep.md).
"""

MARGIN_WEIGHT = 0.24
SEPARATION_WEIGHT = 0.34
SINGLE_CLASS_WEIGHT = 0.16
INTERCEPT = 0.19


def predicted_iou(*, margin: float, separation: float, num_classes: int) -> float:
    """Predicted mean IoU of one mask.

    Args:
        margin: mean over the image of best minus second-best score, scores normalised to sum 1; in [0, 1].
        separation: eta^2 of the features, in [0, 1].
        num_classes: K, labels of the image; without any the mask is background by the label's word: 1.

    Returns:
        A value in [0, 1].
    """
    if num_classes == 0:
        return 1.0
    value = INTERCEPT + MARGIN_WEIGHT * margin + SEPARATION_WEIGHT * separation + SINGLE_CLASS_WEIGHT / num_classes
    return min(1.0, max(0.0, value))
