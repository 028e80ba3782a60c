"""Export to FiftyOne."""
