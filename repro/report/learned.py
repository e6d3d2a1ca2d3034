"""What the claims say of a study, in lines for a terminal."""

from collections import Counter
from collections.abc import Mapping

from repro.report.claims.definition import Claim
from repro.report.claims.verdicts import Judged, judged
from repro.results.published import Published

_STUDIES: Mapping[str, str] = {
    "time": "schemes",
    "operations": "schemes",
    "loss": "schemes",
    "quality": "schemes",
    "share": "schemes",
    "share_below": "schemes",
    "order_of_shares": "schemes",
    "time_in_random_order": "curriculum",
    "loss_in_random_order": "curriculum",
}
"""Measurement -> the study whose runs it compares, where a claim names none."""
_WORDS = {
    "holds": ("holds", "hold"),
    "does not hold": ("does not hold", "do not hold"),
    "open": ("is open", "are open"),
    "not measured": ("was not measured", "were not measured"),
}
"""Verdict on one claim, and on several."""


def study_of(claim: Claim) -> str | None:
    """Return the study whose runs a claim is about; None of an analysis or of one layer."""
    named = claim.parameters.get("study")
    return str(named) if named is not None else _STUDIES.get(claim.measure)


def learned(published: Published, study: str) -> list[str]:
    """Say in three lines of at most 80 characters what the claims about a study have come to.

    How many hold; then its two main numbers with 95 % intervals, the paper's and the verdict. Of a study that
    no claim is about there is nothing to say.
    """
    mine = [one for one in judged(published) if study_of(one.claim) == study]
    if not mine:
        return []
    counts: Counter[str] = Counter(one.judgement.verdict for one in mine)
    named = ", ".join(
        f"{counts[verdict]} {words[counts[verdict] > 1]}"
        for verdict, words in _WORDS.items()
        if counts[verdict]
    )
    numbers = [_number(one) for one in mine if one.claim.short is not None]
    return [f"Of {len(mine)} claims {named}; [ ]: 95 %", *numbers]


def _number(one: Judged) -> str:
    if not one.ours:
        return f"{one.claim.short}: {one.judgement.verdict}"
    ours, printed = (words.removesuffix(" times") for words in (one.ours, one.paper))
    paper = f", paper {printed}" if printed else ""
    return f"{one.claim.short}: {ours} [{one.interval}]{paper}: {one.judgement.verdict}"
