"""Pareto front and dominance of the rows of a comparison, by FLOPs and quality."""

from collections.abc import Sequence

from repro.report.schemes import SchemeRow, flops, performance
from repro.report.statistics import interval

STUDY = "gates"


def on_front(row: SchemeRow, peers: Sequence[SchemeRow]) -> bool:
    """Return whether no peer dominates the row: at least as good for at most as many FLOPs, and not equal."""
    mine = _objectives(row)
    return mine is not None and not any(
        other is not None and other[0] <= mine[0] and other[1] >= mine[1] and other != mine
        for other in map(_objectives, peers)
    )


def significantly_dominated(row: SchemeRow, peers: Sequence[SchemeRow]) -> bool:
    """Return whether a peer with at most as many FLOPs is better by more than the 95 % intervals of both."""
    mine, half = _objectives(row), interval(row.values(performance))
    if mine is None or half is None:
        return False
    for peer in peers:
        other, other_half = _objectives(peer), interval(peer.values(performance))
        if other is None or other_half is None or other[0] > mine[0]:
            continue
        if other[1] - mine[1] > half + other_half:
            return True
    return False


def _objectives(row: SchemeRow) -> tuple[float, float] | None:
    """Return FLOPs and quality, the higher the better; None if one of them was not measured."""
    cost, quality = row.mean(flops), row.mean(performance)
    if cost is None or quality is None:
        return None
    return cost, quality if row.runs[0].metric.higher_is_better else -quality
