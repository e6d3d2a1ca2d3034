"""Every claim with its verdict, and its numbers in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from repro.report.claims.definition import Claim, claims
from repro.report.claims.evidence import Judgement, judge, needed
from repro.report.claims.measures import measured
from repro.report.claims.undecided import would_decide
from repro.report.claims.units import METRIC, UNITS, Unit
from repro.results.published import Published
from repro.tasks import base as tasks


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim, what was found, and the words for it; they are empty where there is nothing."""

    claim: Claim
    judgement: Judgement
    would_decide: str = ""
    """What would decide it, if it is open."""

    @property
    def unit(self) -> Unit:
        """Of the number; where items are counted, of the number of each."""
        unit = UNITS[self.claim.measure]
        if unit is METRIC and "task" in self.claim.parameters:
            return replace(unit, word=tasks.load(str(self.claim.parameters["task"])).METRIC)
        return unit

    @property
    def need(self) -> int:
        """How many items must keep to the rule."""
        return needed(self.claim, self.judgement.total)

    @property
    def rule(self) -> str:
        """Where the interval must lie, with units: `below 1 times`, `above 0 points in all 4 tasks`."""
        claim = self.claim
        limits = " and ".join(
            f"{side} {self.unit.factor * limit:.3g} {self.unit.word}".rstrip()
            for side, limit in (("above", claim.above), ("below", claim.below))
            if limit is not None
        )
        if claim.count is None:
            return limits
        least = "all" if claim.count == "all" else f"at least {claim.count} of"
        return f"{limits} in {least} {self.judgement.total or 'the'} {self.judgement.items}"

    @property
    def ours(self) -> str:
        """Our number with its unit: `1.07 times`, `3 of 6 tasks`."""
        estimate = self.judgement.estimate
        if estimate is None:
            return ""
        if self.claim.count is not None:
            return f"{estimate.value:.0f} of {self.judgement.total} {self.judgement.items}"
        return self.unit.text(estimate.value)

    @property
    def interval(self) -> str:
        """The 95 % interval: `0.98 to 1.17`, `1.2 or more`; of a count what it may become."""
        estimate = self.judgement.estimate
        if estimate is None:
            return ""
        low, high = estimate.low, estimate.high
        if low is None or high is None:
            return "one seed: none"
        if self.claim.count is not None:
            return f"may be {low:.0f} to {high:.0f}" if low < high else "all decided"
        ends = ["" if math.isinf(end) else self.unit.number(end) for end in (low, high)]
        words = {(True, True): "{0} to {1}", (True, False): "{0} or more", (False, True): "{1} or less"}
        return words.get((bool(ends[0]), bool(ends[1])), "no end").format(*ends)

    @property
    def paper(self) -> str:
        """The paper's number with its unit."""
        if self.claim.paper_value is None:
            return ""
        if self.claim.paper_of is not None:
            return f"{self.claim.paper_value:.0f} of {self.claim.paper_of}"
        return self.unit.text(self.claim.paper_value)

    @property
    def effect(self) -> str:
        """The smallest effect that so many seeds could have shown."""
        estimate = self.judgement.estimate
        if estimate is None or estimate.detectable is None:
            return ""
        return self.unit.effect(estimate.detectable)


_latest: list[tuple[Published, Sequence[Judged]]] = []
"""What was judged last: the tables, figures and pages of one report ask for the same."""


def judged(published: Published) -> Sequence[Judged]:
    """Judge all claims, in the order of `claims.toml`."""
    if not _latest or _latest[0][0] is not published:
        _latest[:] = [(published, [_judged(claim, published) for claim in claims()])]
    return _latest[0][1]


def _judged(claim: Claim, published: Published) -> Judged:
    evidence = measured(claim, published)
    return Judged(claim=claim, judgement=judge(claim, evidence), would_decide=would_decide(claim, evidence))
