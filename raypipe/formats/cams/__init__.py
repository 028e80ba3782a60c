"""Class activation maps of other programs."""
