"""Manifests, images, importers, shards: what flows through the pipelines."""
