"""Trains the networks on Ray Train."""
