"""ROUGE-1, -2, -L and -Lsum as mean F-measures in percent, by rouge-score."""

import re

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

from repro.metrics.shared.in_memory import InMemoryMetric

HIGHER_IS_BETTER = True

TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

_SENTENCE_END = re.compile(r"([.!?]['\"”’)\]]*)\s+")
"""White space after `.`, `!` or `?` and any closing quotes and brackets. It also cuts after "Dr."."""


def one_sentence_a_line(text: str) -> str:
    """Return a text of several lines as it is; cut one of a single line after each end of a sentence."""
    text = text.strip()
    return text if "\n" in text else _SENTENCE_END.sub(r"\1\n", text)


class Metric(InMemoryMetric):
    """Compute ROUGE of summaries: lower case, Porter stems of runs of a-z and 0-9, F-measure.

    `compute(predictions=["the cats sat"], references=["the cat sat down"])` gives `{"rouge1": 85.71...,
    "rouge2": 80.0, "rougeL": 85.71..., "rougeLsum": 85.71..., "mean_words": 3.0}`.

    * predictions and references: texts. Only ROUGE-Lsum asks where sentences end: a text of several
      lines has one sentence a line, a text of one line is cut by `one_sentence_a_line`.
    * `rouge1`, `rouge2`, `rougeL`, `rougeLsum`: means over examples, percent, 0 to 100. Texts without
      n-grams, and so any two empty texts, score 0.
    * `mean_words`: words of a prediction, split at white space, mean over examples.

    Sources: Lin 2004, https://aclanthology.org/W04-1013/; the implementation,
    https://github.com/google-research/google-research/tree/master/rouge.

    Raises:
        ValueError: no examples.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean ROUGE F-measures in percent.",
            citation="",
            inputs_description="predictions and references: equally long lists of texts",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        if not predictions:
            raise ValueError("ROUGE needs at least one prediction")
        scorer = RougeScorer(list(TYPES), use_stemmer=True)
        scores = [
            scorer.score(one_sentence_a_line(reference), one_sentence_a_line(prediction))
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        means = {name: 100 * sum(score[name].fmeasure for score in scores) / len(scores) for name in TYPES}
        words = sum(len(prediction.split()) for prediction in predictions)
        return {**means, "mean_words": words / len(predictions)}
