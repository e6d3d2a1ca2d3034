"""Which rows of a comparison are beaten by none that costs as little."""

from collections.abc import Sequence

from repro.tables._schemes import SchemeRow, flops, performance
from repro.tables._statistics import interval

STUDY = "gates"


def on_front(row: SchemeRow, peers: Sequence[SchemeRow]) -> bool:
    """Whether no peer is at least as good with at most as many FLOPs, and better in one of the two."""
    mine = _place(row)
    return mine is not None and not any(
        other is not None and other[0] <= mine[0] and other[1] >= mine[1] and other != mine
        for other in map(_place, peers)
    )


def surely_beaten(row: SchemeRow, peers: Sequence[SchemeRow]) -> bool:
    """Whether a peer with at most as many FLOPs is better by more than both 95 % intervals together."""
    mine, half = _place(row), interval(row.values(performance))
    if mine is None or half is None:
        return False
    for peer in peers:
        other, other_half = _place(peer), interval(peer.values(performance))
        if other is None or other_half is None or other[0] > mine[0]:
            continue
        if other[1] - mine[1] > half + other_half:
            return True
    return False


def _place(row: SchemeRow) -> tuple[float, float] | None:
    """FLOPs and quality, the higher the better; None if one of them was not measured."""
    cost, quality = row.mean(flops), row.mean(performance)
    if cost is None or quality is None:
        return None
    return cost, quality if row.runs[0]["metric"]["higher_is_better"] else -quality
