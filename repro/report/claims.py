"""The claims that a measurement can check, of the paper and of AdaMoE, and how each is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from repro.report import adamoe, curriculum, threshold
from repro.report.measures import (
    Measure,
    RowNumber,
    Samples,
    by_seed,
    difference_of,
    gain,
    layer_time_saved,
    over_tasks,
    rank_agreement,
    saved,
    slower_or_never,
)
from repro.report.schemes import STUDY, SchemeRow, flops, share_multi_expert
from repro.report.token_measures import (
    above_base,
    categories,
    clear_share,
    last_minus_first_layer,
    late_minus_early,
    parts,
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a paper as a number that must lie between two limits."""

    text: str
    where: str
    """Section, table or figure of the paper; another paper is named."""
    paper: str
    """The paper's own number."""
    quantity: str
    """What the number is, with its unit."""
    samples: Samples
    """The number, once for every seed (or, for Table 1, for every case that was timed)."""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def rule(self) -> str:
        """When the claim holds: both ends of the interval keep to it."""
        parts = [
            f"{sign} {limit:.3g}"
            for sign, limit in ((">=", self.at_least), ("<=", self.at_most))
            if limit is not None
        ]
        return " and ".join(parts)


def _norm_time(row: SchemeRow) -> float | None:
    return row.norm_time


def _norm_flops(row: SchemeRow) -> float | None:
    return row.relative_to_baseline(flops)


def _mean_share(row: SchemeRow) -> float | None:
    return row.mean(share_multi_expert)


def _schemes(measure: Measure) -> Samples:
    return by_seed(STUDY, measure)


def _threshold_study(measure: Measure) -> Samples:
    return by_seed(threshold.STUDY, measure)


def _adamoe_study(number: RowNumber) -> Samples:
    return by_seed(adamoe.STUDY, over_tasks("adamoe", number), lambda variant: adamoe.BASELINE)


def _curriculum_study(number: RowNumber) -> Samples:
    return by_seed(curriculum.STUDY, over_tasks("random", number), lambda variant: "cosine")


CLAIMS: Sequence[Claim] = (
    Claim(
        text="Adaptive gating takes less training time than top-2 to reach the same loss",
        where="abstract, Table 3",
        paper="0.225 at most; 0.168 on average of Table 3",
        quantity="time saved, mean over tasks where the loss was reached",
        samples=_schemes(over_tasks("adaptive", saved(_norm_time))),
        at_least=0.0,
    ),
    Claim(
        text="Adaptive gating performs as well as top-2",
        where="abstract, Table 3",
        paper="+0.0034 on average of Table 3",
        quantity="relative gain over top-2, mean over tasks",
        samples=_schemes(over_tasks("adaptive", gain)),
        at_least=-0.01,
    ),
    Claim(
        text="Adaptive gating saves floating-point operations against top-2",
        where="Table 3, 4.4",
        paper="0.27 on average of Table 3",
        quantity="FLOPs saved, mean over tasks",
        samples=_schemes(over_tasks("adaptive", saved(_norm_flops))),
        at_least=0.1,
    ),
    Claim(
        text="A tenth to a quarter of the tokens are given two experts",
        where="4.4",
        paper="0.113 to 0.256",
        quantity="share of two-expert tokens, mean over tasks",
        samples=_schemes(over_tasks("adaptive", _mean_share)),
        at_least=0.10,
        at_most=0.30,
    ),
    Claim(
        text="Sentiment analysis needs two experts least, translation and dialogue most",
        where="4.4, 4.5",
        paper="0.113 for sentiment, 0.256 for translation",
        quantity="rank correlation over tasks of our share and the paper's",
        samples=_schemes(rank_agreement),
        at_least=0.5,
    ),
    Claim(
        text="Top-1 takes longer than top-2 to the same loss in 4 of 6 tasks",
        where="4.4, Table 3",
        paper="4 of 6",
        quantity="share of tasks where top-1 is slower or never gets there",
        samples=_schemes(over_tasks("top-1", slower_or_never)),
        at_least=0.5,
    ),
    Claim(
        text="Top-1 performs worse than top-2",
        where="Table 3",
        paper="-0.00177 on average of Table 3",
        quantity="relative gain over top-2, mean over tasks",
        samples=_schemes(over_tasks("top-1", gain)),
        at_most=0.0,
    ),
    Claim(
        text="Adaptive gating performs better than top-1",
        where="4.4",
        paper="+0.0052 on average of Table 3",
        quantity="difference of the relative gains over top-2, mean over tasks",
        samples=_schemes(difference_of("adaptive", "top-1", gain)),
        at_least=0.0,
    ),
    Claim(
        text="A threshold of 0.2 trains faster than one of 0.4",
        where="4.6, Table 5",
        paper="-0.097 on average of Table 5",
        quantity="normalised time at 0.2 minus that at 0.4, mean over tasks that reach the loss with both",
        samples=_threshold_study(difference_of("0.2", "0.4", _norm_time)),
        at_most=0.0,
    ),
    Claim(
        text="A larger threshold performs better",
        where="4.6, Table 5",
        paper="-0.00176 on average of Table 5",
        quantity="relative gain of 0.4 minus that of 0.05, mean over tasks",
        samples=_threshold_study(difference_of("0.4", "0.05", gain)),
        at_least=0.0,
    ),
    Claim(
        text="Without the curriculum training takes longer",
        where="4.6, Table 6",
        paper="0.137 on average",
        quantity="time inflation, mean over tasks",
        samples=_curriculum_study(curriculum.inflation),
        at_least=0.0,
    ),
    Claim(
        text="Without the curriculum the model performs worse",
        where="4.6, Table 6",
        paper="-0.21 at most",
        quantity="relative gain of random order, mean over tasks",
        samples=_curriculum_study(gain),
        at_most=0.0,
    ),
    Claim(
        text="Most tokens clearly prefer one expert",
        where="3.1, Figure 1",
        paper="0.55 at least",
        quantity="share of tokens with p1 >= 2 p2 under top-2, mean over tasks",
        samples=clear_share("top-2"),
        at_least=0.55,
    ),
    Claim(
        text="Sentiment: neutral words get two experts more often",
        where="4.5, Table 4",
        paper="no number",
        quantity="share of two-expert tokens among neutral words minus that of all",
        samples=above_base("sst2", categories, ["neutral"]),
        at_least=0.0,
    ),
    Claim(
        text="Sentiment: negation and contrast get two experts more often",
        where="4.5",
        paper="no number",
        quantity="share of two-expert tokens among negation and contrast minus that of all",
        samples=above_base("sst2", categories, ["negation", "contrast"]),
        at_least=0.0,
    ),
    Claim(
        text="Sentiment: the share is stable across layers",
        where="4.5, Figure 2(a)",
        paper="no number",
        quantity="share in the last layer minus that in the first",
        samples=last_minus_first_layer("sst2", "encoder"),
        at_least=-0.05,
        at_most=0.05,
    ),
    Claim(
        text="Translation: the share falls along the encoder",
        where="4.5, Figure 2(b)",
        paper="no number",
        quantity="share in the encoder's last layer minus that in its first",
        samples=last_minus_first_layer("wmt19", "encoder"),
        at_most=0.0,
    ),
    Claim(
        text="Translation: the share rises along the decoder",
        where="4.5, Figure 2(b)",
        paper="no number",
        quantity="share in the decoder's last layer minus that in its first",
        samples=last_minus_first_layer("wmt19", "decoder"),
        at_least=0.0,
    ),
    Claim(
        text="Question answering: the question gets two experts more often",
        where="4.5, Table 4",
        paper="no number",
        quantity="share of two-expert tokens in the question minus that of all",
        samples=above_base("squad", parts, ["question"]),
        at_least=0.0,
    ),
    Claim(
        text="Summarisation: pronouns get two experts more often",
        where="4.5",
        paper="no number",
        quantity="share of two-expert tokens among the article's pronouns minus that of all",
        samples=above_base("cnn_dailymail", categories, ["pronoun"], "encoder"),
        at_least=0.0,
    ),
    Claim(
        text="Summarisation: the share falls along encoder and decoder",
        where="4.5, Figure 2(d)",
        paper="no number",
        quantity="share in the encoder's last layer minus that in its first",
        samples=last_minus_first_layer("cnn_dailymail", "encoder"),
        at_most=0.0,
    ),
    Claim(
        text="Text completion: later tokens get two experts more often",
        where="4.5",
        paper="no number",
        quantity="share in the last three tenths of the sequence minus that in the first three",
        samples=late_minus_early("wikitext"),
        at_least=0.0,
    ),
    Claim(
        text="Dialogue: conversational words get two experts more often",
        where="4.5, Table 4",
        paper="no number",
        quantity="share of two-expert tokens among conversational markers minus that of all",
        samples=above_base("soda", categories, ["marker"]),
        at_least=0.0,
    ),
    Claim(
        text="With 80 % of top-1 tokens a layer saves less time than operations",
        where="2.2, Table 1",
        paper="0.24 of the time for 0.40 of the operations",
        quantity="layer time saved, forward and backward, over the cases timed",
        samples=layer_time_saved(0.8),
        at_most=0.35,
    ),
    Claim(
        text="AdaMoE: fine-tuning with null experts saves operations against plain fine-tuning",
        where="AdaMoE, abstract",
        paper="0.145 (Mixtral-8x7B on ARC-C)",
        quantity="FLOPs saved at evaluation, mean over tasks",
        samples=_adamoe_study(saved(adamoe.norm_flops)),
        at_least=0.05,
    ),
    Claim(
        text="AdaMoE: fine-tuning with null experts performs as well as plain fine-tuning",
        where="AdaMoE, abstract",
        paper="+1.69 points of accuracy (Mixtral-8x7B on ARC-C)",
        quantity="relative gain over plain fine-tuning, mean over tasks",
        samples=_adamoe_study(gain),
        at_least=-0.01,
    ),
)
