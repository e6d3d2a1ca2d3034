"""What would decide a claim that is open: how many times as much data, if mean and spread stay."""

import math
from operator import itemgetter

from repro.report.claims.definition import Claim
from repro.report.claims.evidence import Evidence, judge, needed, outcome, within
from repro.report.statistics import Estimate

MOST = 1000
"""Times as much data beyond which a number counts as lying on its limit."""


def would_decide(claim: Claim, evidence: Evidence) -> str:
    """Say in a few words what would decide a claim; nothing of one that is not open.

    Half the width of an interval falls with the root of the number of seeds (rounds, tasks), so that an
    interval leaves out a limit at (half width / distance to the limit)^2 times as many. Student's t, which
    becomes smaller as well, is left out: the number is rather too large.
    """
    if judge(claim, evidence).verdict != "open":
        return ""
    items = evidence.items if claim.count is not None else {"": evidence.overall}
    estimates = [one for one in items.values() if one is not None]
    if any(one.low is None for one in estimates):
        return f"a second {evidence.sample}"
    counted = claim.count is not None
    times = _of_items(claim, estimates, evidence.total) if counted else times_as_much(claim, estimates[0])
    if times is None:
        return f"{evidence.unit} that were not measured"
    if math.isinf(times):
        cut = any(math.isinf(end) for one in estimates for end in (one.low, one.high) if end is not None)
        return "runs that reach their target" if cut else f"no number of {evidence.sample}s: on the limit"
    if times > MOST:
        return f"more than {MOST:,} times as many {evidence.sample}s"
    return f"about {float(f'{times:.2g}'):g} times as many {evidence.sample}s"


def times_as_much(claim: Claim, one: Estimate) -> float:
    """Return how many times as much data decides about a number; 1 if it is decided.

    It is infinite for a number on its limit, and where the interval has no end on that side.
    """
    if within(claim, one) != "open":
        return 1.0
    assert one.low is not None, "one seed has no interval"
    assert one.high is not None, "one seed has no interval"
    limits = [limit for limit in (claim.above, claim.below) if limit is not None]
    widths = []
    for limit in _violated(claim, one) or limits:
        half = one.high - one.value if limit > one.value else one.value - one.low
        distance = abs(limit - one.value)
        widths.append(half / distance if distance else math.inf)
    return max(1.0, *(width**2 for width in widths))


def _of_items(claim: Claim, estimates: list[Estimate], total: int) -> float | None:
    """Return how much decides about a count, if every item comes out on the side where its mean is.

    None: items that were not measured could still turn it.
    """
    holding = failing = 0
    for times, one in sorted(((times_as_much(claim, one), one) for one in estimates), key=itemgetter(0)):
        if _comes_out_well(claim, one):
            holding += 1
        else:
            failing += 1
        if outcome(holding, failing, total, needed(claim, total)) != "open":
            return times
    return None


def _comes_out_well(claim: Claim, one: Estimate) -> bool:
    verdict = within(claim, one)
    return not _violated(claim, one) if verdict == "open" else verdict == "holds"


def _violated(claim: Claim, one: Estimate) -> list[float]:
    """Return the limits that the number itself does not keep to."""
    above = [claim.above] if claim.above is not None and one.value <= claim.above else []
    return above + ([claim.below] if claim.below is not None and claim.below <= one.value else [])
