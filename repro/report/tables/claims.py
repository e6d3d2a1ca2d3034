"""Every claim that a measurement can check, with ours and a verdict."""

import math

from repro.report.claims.definition import Claim
from repro.report.claims.evidence import Judgement
from repro.report.claims.verdicts import judged
from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.results.published import Published

FILE = "claims.csv"
COLUMNS = (
    "Claim",
    "Verdict",
    "Ours",
    "Low",
    "High",
    "Smallest effect",
    "Samples",
    "Would decide",
    "Holds if",
    "Paper",
    "Why",
    "Where",
    "Quantity",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per claim. The verdict looks at the 95 % interval, not at the mean alone.

    `holds`: the whole interval keeps to the rule. `does not hold`: none of it does. `open`: in between, or a
    single seed, which has no interval; the smallest effect that could have been seen stands beside it.
    `not measured`: no run says anything. Where items are counted, `Ours` is how many keep to the rule.
    """
    return [_row(one.claim, one.judgement, one.would_decide) for one in judged(published)]


def _row(claim: Claim, judgement: Judgement, would_decide: str) -> Row:
    estimate = judgement.estimate
    return {
        "Claim": claim.text,
        "Verdict": judgement.verdict,
        "Ours": rounded(estimate.value) if estimate else None,
        "Low": _end(estimate.low) if estimate else None,
        "High": _end(estimate.high) if estimate else None,
        "Smallest effect": rounded(estimate.detectable, 2) if estimate else None,
        "Samples": estimate.size if estimate else 0,
        "Would decide": would_decide or None,
        "Holds if": claim.rule,
        "Paper": claim.paper,
        "Why": judgement.reason or None,
        "Where": claim.where,
        "Quantity": claim.quantity,
    }


def _end(value: float | None) -> float | None:
    """Return an end of the interval; None where there is none, or it is open."""
    return None if value is None or math.isinf(value) else rounded(value)
