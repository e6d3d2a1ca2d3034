"""Pareto front and dominance of the rows of a comparison, by FLOPs and quality."""

import re
from collections.abc import Sequence

from repro.report.schemes import SchemeRow, flops, mean_experts, mean_experts_eval, performance
from repro.report.statistics import LEVEL, interval, mean

STUDY = "gates"
TOLERANCE = 0.15
"""Experts per token by which a row may miss its budget."""


def budget(row: SchemeRow) -> float | None:
    """Return the mean number of experts that the label of a row ends with; None of an anchor."""
    aimed = re.fullmatch(r".* (\d+(?:\.\d+)?)", row.scheme)
    return float(aimed[1]) if aimed else None


def misses_budget(row: SchemeRow) -> bool:
    """Return whether the experts per token, in training or at evaluation, are off the budget.

    FLOPs are of training, quality is of evaluation: a row is a point at its budget if both are. What is off
    is no point at the budget that it stands for, so it is on no front and beats no other row.
    """
    aimed = budget(row)
    used = [row.mean(mean_experts), row.mean(mean_experts_eval)]
    return aimed is not None and any(
        experts is not None and abs(experts - aimed) > TOLERANCE for experts in used
    )


def on_front(row: SchemeRow, peers: Sequence[SchemeRow]) -> bool:
    """Return whether no peer dominates the row: at least as good for at most as many FLOPs, and not equal.

    Rows that miss their budget are left out.
    """
    mine = _objectives(row)
    return mine is not None and not any(
        other is not None and other[0] <= mine[0] and other[1] >= mine[1] and other != mine
        for other in map(_objectives, peers)
    )


def significantly_dominated(row: SchemeRow, peers: Sequence[SchemeRow]) -> bool:
    """Return whether a peer with at most as many FLOPs is better, paired by seed.

    The whole interval of the differences says so, at 5 % over the number of such peers (Bonferroni): among
    many peers one is better by chance.
    """
    mine = _objectives(row)
    if mine is None:
        return False
    cheaper = [
        peer for peer in peers if peer is not row and (other := _objectives(peer)) and other[0] <= mine[0]
    ]
    for peer in cheaper:
        leads = _leads(peer, row)
        lead, half = mean(leads), interval(leads, LEVEL / len(cheaper))
        if lead is not None and half is not None and lead > half:
            return True
    return False


def _leads(row: SchemeRow, other: SchemeRow) -> list[float]:
    """Return by how much a row is better than another in each seed that both have."""
    theirs = {run.seed: performance(run) for run in other.runs}
    pairs = [(performance(run), theirs.get(run.seed)) for run in row.runs]
    sign = 1 if row.runs[0].metric.higher_is_better else -1
    return [sign * (mine - rival) for mine, rival in pairs if mine is not None and rival is not None]


def _objectives(row: SchemeRow) -> tuple[float, float] | None:
    """Return FLOPs and quality, the higher the better; None if not measured, or off the budget."""
    cost, quality = row.mean(flops), row.mean(performance)
    if cost is None or quality is None or misses_budget(row):
        return None
    return cost, quality if row.runs[0].metric.higher_is_better else -quality
