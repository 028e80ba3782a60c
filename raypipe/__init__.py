"""raypipe: segmentation masks from image-level labels, as distributed batch processing on Ray."""

__version__ = "0.1.0"
