"""What a measurement gives, and the verdict on a claim by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from repro.report.claims.definition import Claim
from repro.report.statistics import Estimate

Verdict: TypeAlias = Literal["holds", "does not hold", "open", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A number, and the same number of every item by itself."""

    overall: Estimate | None = None
    items: Mapping[str, Estimate] = field(default_factory=dict)
    """By name: of each task, case, threshold."""
    unit: str = "tasks"
    """What the items are."""
    sample: str = "seed"
    """What there could be more of, to make intervals narrower."""
    expected: int = 0
    """Items that the paper has; those that were not measured are undecided."""
    notes: Sequence[str] = ()
    """What was left out, and what enters as a bound."""

    @property
    def total(self) -> int:
        """Items, those of the paper that were not measured included."""
        return max(len(self.items), self.expected)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on a claim, and why."""

    verdict: Verdict
    estimate: Estimate | None
    """What was judged: the number, or the number of items that keep to the rule."""
    reason: str
    total: int = 0
    """Items that decide, those that were not measured included; 0: one number decides."""
    items: str = ""
    """What they are."""


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Judge a claim by its evidence.

    A number holds if its whole 95 % interval lies between the limits, and does not if none of it does. Of
    items each is judged so; the claim holds if enough of them do, and does not if too few can.
    """
    if claim.count is None:
        verdict, reasons = _of_number(claim, evidence)
        estimate = evidence.overall
    else:
        verdict, estimate, reasons = _of_items(claim, evidence)
    if verdict != "not measured" and claim.reading:
        reasons.append(f"our reading: {claim.reading}")
    return Judgement(
        verdict=verdict,
        estimate=estimate,
        reason="; ".join([*reasons, *evidence.notes]),
        total=0 if claim.count is None else evidence.total,
        items="" if claim.count is None else evidence.unit,
    )


def within(claim: Claim, estimate: Estimate) -> Verdict:
    """Judge one number by its interval; an interval that touches a limit, as a difference of 0, is open."""
    if estimate.low is None or estimate.high is None:
        return "open"
    above, below = claim.above, claim.below
    if (above is None or above < estimate.low) and (below is None or estimate.high < below):
        return "holds"
    if (above is not None and estimate.high < above) or (below is not None and below < estimate.low):
        return "does not hold"
    return "open"


def _of_number(claim: Claim, evidence: Evidence) -> tuple[Verdict, list[str]]:
    estimate, measured = evidence.overall, len(evidence.items)
    if estimate is None:
        return "not measured", []
    verdict = within(claim, estimate)
    reasons = [f"mean over {measured} of {evidence.expected} tasks"] if measured < evidence.expected else []
    if verdict == "open" and estimate.low is None:
        reasons.append("a single seed has no interval")
    elif verdict == "open":
        reasons.append("the interval holds numbers on both sides of the limit")
    return verdict, reasons


def _of_items(claim: Claim, evidence: Evidence) -> tuple[Verdict, Estimate | None, list[str]]:
    verdicts = {name: within(claim, estimate) for name, estimate in evidence.items.items()}
    if not verdicts:
        return "not measured", None, []

    def judged(verdict: Verdict) -> list[str]:
        return [name for name, given in verdicts.items() if given == verdict]

    holding, failing, undecided = judged("holds"), judged("does not hold"), judged("open")
    total = evidence.total
    missing = total - len(verdicts)
    effects = [effect for name in undecided if (effect := evidence.items[name].detectable) is not None]
    estimate = Estimate(
        value=len(holding),
        low=len(holding),
        high=total - len(failing),
        detectable=max(effects, default=None),
        size=len(verdicts),
    )
    reasons = [f"{len(holding)} of {len(verdicts)} {evidence.unit}"]
    reasons += [f"{missing} more not measured"] if missing else []
    reasons += [
        f"{words}: {', '.join(names)}" for words, names in (("not", failing), ("open", undecided)) if names
    ]
    return outcome(len(holding), len(failing), total, needed(claim, total)), estimate, reasons


def needed(claim: Claim, total: int) -> int:
    """Return how many of so many items must keep to the rule."""
    assert claim.count is not None, "items are counted"
    return total if claim.count == "all" else claim.count


def outcome(holding: int, failing: int, total: int, need: int) -> Verdict:
    """Judge items by how many of them hold and fail; the rest may do either."""
    if holding >= need:
        return "holds"
    return "does not hold" if total - failing < need else "open"
