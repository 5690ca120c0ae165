"""Benchmarks of this project and its peers, measured side by side in one process: `python -m benchmarks SUITE`."""
