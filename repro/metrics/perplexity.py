"""Perplexity of a language model, per token and per word; lower is better."""

import math

import datasets
import evaluate

from repro.metrics.shared.in_memory import InMemoryMetric

HIGHER_IS_BETTER = False


def total(values: list[float]) -> float:
    """Sum values, rounded once; NaN where the sum does not exist or has no float."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.nan


def finite(value: float) -> float | None:
    """Return the value, or None for infinities and NaN, which JSON cannot hold."""
    return value if math.isfinite(value) else None


def exponential(value: float) -> float | None:
    """Return the exponential, or None where it is not a finite float."""
    try:
        return finite(math.exp(value))
    except OverflowError:
        return None


class Metric(InMemoryMetric):
    """Compute perplexity over all predicted tokens: the exponential of the mean negative log likelihood.

    `compute(predictions=[2.0, 4.0], references=[{"tokens": 2, "words": 1}, {"tokens": 1, "words": 1}])`
    gives `{"perplexity": exp(6 / 3) = 7.38..., "word_perplexity": exp(6 / 2) = 20.08..., "tokens": 3,
    "words": 2, "bits_per_token": 2 / ln 2 = 2.88...}`.

    * predictions: for each example the negative log likelihood in nats, summed over its predicted tokens.
      references: for each example how many tokens and words were predicted.
    * `perplexity`: per token, so it depends on the tokenizer. `word_perplexity`: the same sum shared among
      words, which tokenizers leave alone; None without words. `bits_per_token`: base 2 logarithm of
      `perplexity`. `tokens` and `words`: sums.
    * An entry whose value is infinite, too large for a float, or NaN is None, as JSON has no such numbers.

    Source: Jelinek et al. 1977, https://doi.org/10.1121/1.2016299; for words under other tokens, Mielke
    2019, https://sjmielke.com/comparing-perplexities.htm.

    Raises:
        ValueError: no predicted tokens at all (so also: no examples), or negative counts.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Perplexity per token and per word.",
            citation="",
            inputs_description="predictions: negative log likelihoods; references: token and word counts",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": {"tokens": datasets.Value("int64"), "words": datasets.Value("int64")},
                }
            ),
        )

    def _compute(self, predictions: list[float], references: list[dict[str, int]]) -> dict[str, float | None]:
        if any(count < 0 for reference in references for count in reference.values()):
            raise ValueError("counts of tokens and words cannot be negative")
        nats = total(predictions)
        tokens = sum(reference["tokens"] for reference in references)
        words = sum(reference["words"] for reference in references)
        if not tokens:
            raise ValueError("perplexity needs at least one predicted token")
        return {
            "perplexity": exponential(nats / tokens),
            "word_perplexity": exponential(nats / words) if words else None,
            "tokens": tokens,
            "words": words,
            "bits_per_token": finite(nats / tokens / math.log(2)),
        }
