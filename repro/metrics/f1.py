"""F1 over words and exact match of answers, in percent, as SQuAD v1.1 defines them."""

import re
import string
from collections import Counter

import datasets
import evaluate

from repro.metrics.shared.in_memory import InMemoryMetric

HIGHER_IS_BETTER = True

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def answer_words(text: str) -> list[str]:
    """Split into the words that count: lower case, no a, an, the, no ASCII punctuation ("U.S." is "us")."""
    return _ARTICLE.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split()


def word_f1(prediction: list[str], gold: list[str]) -> float:
    """Compute the harmonic mean of precision and recall over two bags of words, in [0, 1]."""
    if not prediction or not gold:
        return float(prediction == gold)
    # 2PR / (P + R) with P = common / predicted and R = common / gold.
    return 2 * (Counter(prediction) & Counter(gold)).total() / (len(prediction) + len(gold))


class Metric(InMemoryMetric):
    """Compute F1 and exact match of answers against the best of their gold answers.

    `compute(predictions=["The cat sat"], references=[["a cat", "dog"]])` gives
    `{"f1": 66.66..., "exact_match": 0.0}`.

    * predictions: texts. references: for each a list of at least one gold answer.
    * `f1` and `exact_match`: means over examples, percent, 0 to 100. Each takes its own best gold answer.

    One departure from SQuAD v1.1: where nothing is left of both texts F1 is 1, as SQuAD v2.0 has it; the
    v1.1 script gives 0 there, beside an exact match of 1.

    Sources: Rajpurkar et al. 2016, section 6.1, https://aclanthology.org/D16-1264/; the official script
    evaluate-v1.1.py, https://rajpurkar.github.io/SQuAD-explorer/.

    Raises:
        ValueError: no examples, or an example without gold answers.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 over words and exact match of answers, in percent.",
            citation="",
            inputs_description="predictions: texts; references: a list of gold answers for each",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        if not predictions:
            raise ValueError("F1 needs at least one prediction")
        if not all(references):
            raise ValueError("F1 needs at least one gold answer for each prediction")
        f1 = exact = 0.0
        for prediction, golds in zip(predictions, references, strict=True):
            predicted_words, gold_words = answer_words(prediction), [answer_words(gold) for gold in golds]
            f1 += max(word_f1(predicted_words, words) for words in gold_words)
            exact += predicted_words in gold_words
        return {"f1": 100 * f1 / len(predictions), "exact_match": 100 * exact / len(predictions)}
