"""Masks with a network that sleeps, once for the streams of today and once for those of commit ed14985."""
