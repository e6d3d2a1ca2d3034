"""Share of questions whose right choice is the most likely one, also with likelihoods shared over lengths."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from repro.metrics.shared.in_memory import InMemoryMetric

HIGHER_IS_BETTER = True


def most_likely(likelihoods: Sequence[float], lengths: Sequence[int]) -> int:
    """Return the place of the highest log likelihood per unit of length; of equal ones the first.

    Raises:
        ValueError: there are not as many of both.
    """
    rates = [value / length for value, length in zip(likelihoods, lengths, strict=True)]
    return max(range(len(rates)), key=rates.__getitem__)


class Metric(InMemoryMetric):
    """Compute the accuracy of multiple choice by log likelihood, as lm-evaluation-harness does.

    `compute(predictions=[[-6.0, -4.0]], references=[{"right": 0, "characters": [6, 2], "bytes": [6, 2]}])`
    gives `{"acc_norm": 1.0, "acc": 0.0, "acc_bytes": 1.0}`: -6/6 > -4/2, and -6 < -4.

    * predictions: for each question the log likelihoods of its choices, each summed over its tokens.
      references: for each the place of the right choice, and the lengths of the choices' texts, without the
      space before them, in characters and in UTF-8 bytes.
    * `acc`: by the sums. `acc_norm`: by the sums over characters (code points). `acc_bytes`: over bytes. All
      in [0, 1].

    The harness' paper (Biderman et al. 2024, https://arxiv.org/abs/2405.14782) defines acc_norm by bytes, its
    code by characters; its further metric acc_bytes has bytes
    (https://github.com/EleutherAI/lm-evaluation-harness/issues/3278). On ASCII all are the same.

    Raises:
        ValueError: no examples, or a question with other numbers of likelihoods and of lengths.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy of multiple choice by log likelihood.",
            citation="",
            inputs_description="predictions: log likelihoods; references: the right choice, lengths",
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": {
                        "right": datasets.Value("int64"),
                        "characters": datasets.List(datasets.Value("int64")),
                        "bytes": datasets.List(datasets.Value("int64")),
                    },
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[dict[str, Any]]) -> dict[str, float]:
        if not predictions:
            raise ValueError("the accuracy of multiple choice needs at least one question")

        def share(lengths: list[Sequence[int]]) -> float:
            chosen = map(most_likely, predictions, lengths)
            right = [reference["right"] for reference in references]
            return float(sum(one == other for one, other in zip(chosen, right, strict=True)) / len(right))

        return {
            "acc_norm": share([reference["characters"] for reference in references]),
            "acc": share([[1] * len(values) for values in predictions]),
            "acc_bytes": share([reference["bytes"] for reference in references]),
        }
