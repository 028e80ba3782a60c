"""The method's own functions together, as `raypipe.ops` offers them."""

from raypipe.ops.affinity import affinity_labels, pair_offsets, pairwise_affinity, rgb_affinity
from raypipe.ops.cam import (
    Pass,
    background_score,
    merge_cams,
    normalize_cams,
    pool_to_grid,
    resize_cam,
    sample_cam,
    stack_background,
    upsample_to_image,
)
from raypipe.ops.dense_crf import dense_crf_many
from raypipe.ops.losses import affinity_loss, affinity_loss_terms, multilabel_soft_margin, pixel_cross_entropy
from raypipe.ops.metrics import confusion_matrix, iou, mean_iou
from raypipe.ops.random_walk import propagate, propagate_at, propagate_batch
from raypipe.ops.refit import fit_cells, softmax_maps, sure_cells
from raypipe.ops.saliency import eps_loss, foreground_loss, ird_loss
from raypipe.ops.trimap import make_trimap

__all__ = [
    "Pass",
    "affinity_labels",
    "affinity_loss",
    "affinity_loss_terms",
    "background_score",
    "confusion_matrix",
    "dense_crf_many",
    "eps_loss",
    "fit_cells",
    "foreground_loss",
    "iou",
    "ird_loss",
    "make_trimap",
    "mean_iou",
    "merge_cams",
    "multilabel_soft_margin",
    "normalize_cams",
    "pair_offsets",
    "pairwise_affinity",
    "pixel_cross_entropy",
    "pool_to_grid",
    "propagate",
    "propagate_at",
    "propagate_batch",
    "resize_cam",
    "rgb_affinity",
    "sample_cam",
    "softmax_maps",
    "stack_background",
    "sure_cells",
    "upsample_to_image",
]
