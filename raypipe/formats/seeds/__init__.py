"""Maps that another program made, to begin with instead of a classifier's."""
