"""Reports: what a run looks like, for people."""
