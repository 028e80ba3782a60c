"""A folder per class."""
