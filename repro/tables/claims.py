"""Every claim of the paper that a measurement can check, with ours and a verdict."""

from typing import Any

from repro.records import Published
from repro.tables._claims import CLAIMS, Claim, finite, verdict
from repro.tables._statistics import interval, mean, rounded

FILE = "claims.csv"
COLUMNS = ("Claim", "Verdict", "Ours", "Interval", "Samples", "Holds if", "Paper", "Where", "Quantity")


def rows(published: Published) -> list[dict[str, Any]]:
    """One row per claim. The verdict looks at the 95 % interval over seeds, not at the mean alone.

    `holds`: the whole interval keeps to the rule. `does not hold`: none of it does. `inconclusive`:
    in between, or a single seed, which has no interval. `not measured`: no run says anything.
    """
    return [_row(claim, finite(claim.samples(published))) for claim in CLAIMS]


def _row(claim: Claim, samples: list[float]) -> dict[str, Any]:
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
