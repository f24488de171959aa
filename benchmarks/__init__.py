"""Measures inferstack next to its peers, in one run on one machine. `python -m benchmarks`."""
