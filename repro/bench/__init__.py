"""Benchmarks: one layer against other implementations, and the parts of a step."""
