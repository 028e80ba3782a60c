"""Importers: other data layouts to a manifest."""
