"""FiftyOne."""
