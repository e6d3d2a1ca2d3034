"""Metrics: `evaluate.Metric` classes around well-kept implementations; nothing is fetched at run time.

A file `metrics/<name>.py` is a metric. It exposes `HIGHER_IS_BETTER` and `Metric`, whose
`compute(predictions=..., references=...)` gives a flat dict that JSON can hold. Its entry `<name>` is the
headline number; others stand beside it. An entry is None where the number does not exist.
"""
