"""Random faults on a cluster, from a seed: `benchmarks/chaos.py`."""
