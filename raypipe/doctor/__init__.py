"""What `raypipe doctor` checks before a run."""
