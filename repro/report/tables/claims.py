"""Every claim that a measurement can check, with ours and a verdict."""

from repro.report.claims import CLAIMS, Claim
from repro.report.statistics import interval, mean, rounded
from repro.report.tables.base import Row
from repro.results.published import Published

FILE = "claims.csv"
COLUMNS = ("Claim", "Verdict", "Ours", "Interval", "Samples", "Holds if", "Paper", "Where", "Quantity")


def rows(published: Published) -> list[Row]:
    """Derive one row per claim. The verdict looks at the 95 % interval over seeds, not at the mean alone.

    `holds`: the whole interval keeps to the rule. `does not hold`: none of it does. `inconclusive`:
    in between, or a single seed, which has no interval. `not measured`: no run says anything.
    """
    return [_row(claim, claim.samples(published)) for claim in CLAIMS]


def verdict(claim: Claim, low: float, high: float) -> str:
    """Judge a claim by an interval."""
    bottom = float("-inf") if claim.at_least is None else claim.at_least
    top = float("inf") if claim.at_most is None else claim.at_most
    if bottom <= low and high <= top:
        return "holds"
    if high < bottom or low > top:
        return "does not hold"
    return "inconclusive"


def _row(claim: Claim, samples: list[float]) -> Row:
    centre, half = mean(samples), interval(samples)
    if centre is None:
        outcome = "not measured"
    elif half is None:
        outcome = "inconclusive"
    else:
        outcome = verdict(claim, centre - half, centre + half)
    return {
        "Claim": claim.text,
        "Verdict": outcome,
        "Ours": rounded(centre),
        "Interval": rounded(half, 2),
        "Samples": len(samples),
        "Holds if": claim.rule,
        "Paper": claim.paper,
        "Where": claim.where,
        "Quantity": claim.quantity,
    }
