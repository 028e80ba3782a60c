"""Scheduling: which stages run in which order with which resources."""
