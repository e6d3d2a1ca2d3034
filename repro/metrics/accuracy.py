"""Share of predictions that equal the label, in [0, 1]."""

import datasets
import evaluate

from repro.metrics.shared.in_memory import InMemoryMetric

HIGHER_IS_BETTER = True


class Metric(InMemoryMetric):
    """Compute accuracy over integer labels.

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

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        equal = sum(p == r for p, r in zip(predictions, references, strict=True))
        return {"accuracy": equal / len(references)}
