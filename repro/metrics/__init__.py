"""Metrics: `evaluate.Metric` classes around well-kept implementations; nothing is fetched at run time.

A file `metrics/<name>.py` is a metric. It exposes `HIGHER_IS_BETTER` and `Metric`, whose
`compute(predictions=..., references=...)` gives a dict with the entry `<name>`.
"""
