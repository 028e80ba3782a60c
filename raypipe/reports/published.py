"""Published results to hold a run against: for VOC's classes only, and never without their conditions."""

from collections.abc import Collection

from raypipe.data.importers.voc import VOC_CLASSES

PUBLISHED = {"cam": 48.0, "walk": 58.1}
"""Stage to mean IoU in percent of AffinityNet's pseudo-masks (table 1). Its number with dCRF could not be verified."""

SOURCE = (
    "AffinityNet's own pseudo-masks (Ahn and Kwak, CVPR 2018, arXiv:1803.10464): mean IoU on the 1,464 "
    "images of VOC 2012 train, ResNet38 trained on 10,582 images, 21 classes with the background"
)


def published_for(classes: Collection[str]) -> dict[str, float]:
    """Stage to published mean IoU in percent; empty unless the classes are VOC's twenty."""
    return dict(PUBLISHED) if set(classes) == set(VOC_CLASSES) else {}
