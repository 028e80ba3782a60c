"""Stages: callables that map columns of a batch to columns; they know nothing of Ray."""
