"""Share of predictions that equal the label, in [0, 1]."""

from typing import Any

import datasets
import evaluate

HIGHER_IS_BETTER = True


class Metric(evaluate.Metric):
    """Accuracy over integer labels.

    `compute(predictions=[1, 0], references=[1, 1])` gives `{"accuracy": 0.5}`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions that equal the label.",
            citation="",
            inputs_description="predictions and references: equally long lists of integers",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        equal = sum(p == r for p, r in zip(predictions, references, strict=True))
        return {"accuracy": equal / len(references)}
