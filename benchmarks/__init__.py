"""Measurements of the whole program on real data: each a command, `python -m benchmarks.NAME`; results in `docs/results`."""
