"""Manifests, images, checkpoints and shards, and the augmentations of training."""
