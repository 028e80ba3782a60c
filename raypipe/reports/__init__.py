"""Renders pages that show a run to people."""
