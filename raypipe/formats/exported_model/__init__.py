"""The segmentation network as one file that runs without raypipe."""
