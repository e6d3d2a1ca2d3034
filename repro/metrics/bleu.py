"""Corpus BLEU in percent, by sacrebleu, with chrF beside it."""

from collections.abc import Sequence
from itertools import zip_longest

import datasets
import evaluate
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from repro.metrics.shared.in_memory import InMemoryMetric

HIGHER_IS_BETTER = True


class Metric(InMemoryMetric):
    """Compute BLEU of a corpus of detokenised translations: up to 4-grams, 13a tokens, exponential smoothing.

    `compute(predictions=["The cat sat on a mat."], references=["The cat sat on the mat."])` gives
    `{"bleu": 48.89..., "chrf": 65.80..., "length_ratio": 1.0, "signature":
    "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"}`.

    * predictions: texts. references: one text for each, or a list of at least one; lists may differ in
      length.
    * `bleu` and `chrf` (chrF2): percent of the whole corpus, 0 to 100. Both are functions of summed
      counts, not means over examples. BLEU is 0 where no prediction has four tokens.
    * `length_ratio`: tokens of the predictions by tokens of the references (of several, the one nearest
      in length); None where the references have none.
    * `signature`: how sacrebleu computed BLEU. Cite it with the number.

    Sources: Papineni et al. 2002, https://aclanthology.org/P02-1040/; Post 2018,
    https://aclanthology.org/W18-6319/; chrF, Popović 2015, https://aclanthology.org/W15-3049/.

    Raises:
        ValueError: no examples, or an example without references.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus BLEU in percent.",
            citation="",
            inputs_description="predictions: texts; references: a text, or a list of texts, for each",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def add_batch(
        self,
        *,
        predictions: Sequence[str] | None = None,
        references: Sequence[str | Sequence[str]] | None = None,
        **other: object,
    ) -> None:
        """Add predictions and references; a reference that is a text becomes a list of one.

        `compute` passes through here too.
        """
        if references is not None:
            references = [[each] if isinstance(each, str) else each for each in references]
        super().add_batch(predictions=predictions, references=references, **other)

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float | str | None]:
        if not predictions:
            raise ValueError("BLEU needs at least one prediction")
        if not all(references):
            raise ValueError("BLEU needs at least one reference for each prediction")
        # sacrebleu wants a stream of first references, one of second ..., with None for missing ones.
        streams = list(zip_longest(*references))
        metric = BLEU()
        score = metric.corpus_score(predictions, streams)
        return {
            "bleu": float(score.score),
            "chrf": float(CHRF().corpus_score(predictions, streams).score),
            "length_ratio": score.sys_len / score.ref_len if score.ref_len else None,
            "signature": str(metric.get_signature()),
        }
