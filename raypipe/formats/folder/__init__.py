"""Import of a folder per class."""
