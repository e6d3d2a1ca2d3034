"""Metrics: scores of predictions against references; `base` has their contract."""
