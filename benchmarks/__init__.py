"""The library against what one would otherwise use, measured in one run: ``python -m benchmarks``."""
