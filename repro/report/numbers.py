"""Numbers as a reader wants them: few digits, large ones with a prefix."""

import math

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "bleu": "BLEU Score",
    "f1": "F1 Score",
    "rouge1": "ROUGE-1",
    "perplexity": "Perplexity per token",
    "acc_norm": "Accuracy (acc_norm)",  # of no task of the paper
}
"""Metrics as Table 3 of the paper names them, perplexity with its unit."""


def quantity(value: float | None) -> str:
    """Format a number with a metric prefix, three digits: 2.18G."""
    if value is None:
        return ""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def short(value: float) -> str:
    """Format three digits of a number, whole ones from 1000 on, a metric prefix from 100,000 on.

    Raises:
        OverflowError: the number is not finite.
    """
    if not math.isfinite(value):
        raise OverflowError(f"a cell is {value}")
    if abs(value) >= 1e5:
        return quantity(value)
    return f"{value:.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"
