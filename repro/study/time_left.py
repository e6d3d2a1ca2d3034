"""Estimate the time that a study still takes, from what its runs have needed so far.

Runs of one kind, a row of a table on a task, differ in the seed alone. What one of them has taken for a share
of its budget, and for its way on to the target, the others will take, too. For kinds not seen yet there is
the estimate of `estimate.py`, corrected by how right it was for others.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

_TRUST = 0.1
"""Budgets that a kind's estimate counts as much as, beside what was measured."""
_WAY = 0.1
"""Way on to a target, in budgets, as long as little is known of it: about the mean at `mini`."""
_MANY = 16
"""Runs that `_WAY` counts as much as: ways differ much from task to task."""


@dataclass(kw_only=True)
class RunSoFar:
    """What is known of a run."""

    kind: Hashable
    cost: float
    """Estimated seconds of its budget; only its ratio to that of other runs matters."""
    may_go_on: bool
    """Whether there is a target, to which it may have to go on after its budget."""
    steps: int = 0
    """Of its budget; 0 until they are known."""
    share: float = 0.0
    """Share of its budget that is done."""
    share_here: float = 0.0
    """Of that, what was done since the estimate began."""
    seconds_here: float = 0.0
    """Training seconds of `share_here`."""
    way: float = 0.0
    """Budgets that it has gone on for."""
    way_seconds_here: float = 0.0
    goes_on: bool = False
    """Whether it has to go on."""
    is_over: bool = False
    """Whether nothing of it is left."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Training seconds of a study, done and left."""

    done: float
    """Since the estimate began."""
    left: Sequence[float]
    """Of each run that is not over."""

    @property
    def share_done(self) -> float:
        """Share of all that is done."""
        whole = self.done + sum(self.left)
        return self.done / whole if whole else 1.0

    def seconds_left(self, elapsed: float, lanes: int) -> float | None:
        """Return the time that is left: as much per training second as up to now; None before any.

        Args:
            elapsed: seconds in which the work was done.
            lanes: runs that work at the same time; one run cannot use them all.
        """
        if not self.done:
            return None
        pace = elapsed / self.done
        return pace * max(sum(self.left), lanes * max(self.left, default=0.0))


def workload(runs: Sequence[RunSoFar]) -> Workload:
    """Estimate what is left of each run."""
    seconds = _seconds_of_budgets(runs)
    ways = _Ways(runs)
    return Workload(
        done=sum(run.seconds_here + run.way_seconds_here for run in runs),
        left=[
            seconds[run.kind] * (max(0.0, 1 - run.share) + ways.left(run)) for run in runs if not run.is_over
        ],
    )


def _seconds_of_budgets(runs: Iterable[RunSoFar]) -> dict[Hashable, float]:
    """Return the training seconds of a budget, by kind."""
    kinds: dict[Hashable, list[RunSoFar]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    share = {kind: sum(run.share_here for run in same) for kind, same in kinds.items()}
    seconds = {kind: sum(run.seconds_here for run in same) for kind, same in kinds.items()}
    cost = {kind: fmean(run.cost for run in same) for kind, same in kinds.items()}
    expected = sum(share[kind] * cost[kind] for kind in kinds)
    correction = sum(seconds.values()) / expected if expected else 1.0
    return {
        kind: (seconds[kind] + _TRUST * correction * cost[kind]) / (share[kind] + _TRUST) for kind in kinds
    }


class _Ways:
    """How far runs go on to their targets, from those that are over."""

    def __init__(self, runs: Iterable[RunSoFar]) -> None:
        self._by_kind: dict[Hashable, list[float]] = {}
        for run in runs:
            if run.is_over and run.may_go_on and run.share >= 1:
                self._by_kind.setdefault(run.kind, []).append(run.way)
        self._all = [way for ways in self._by_kind.values() for way in ways]
        self._mean = fmean([*self._all, *[_WAY] * _MANY])

    def left(self, run: RunSoFar) -> float:
        """Return the budgets that a run still has to go on for, on average."""
        if not run.may_go_on:
            return 0.0
        same = self._by_kind.get(run.kind, [])
        if run.goes_on:
            farther = [way for way in same or self._all if way > run.way]
            return (fmean(farther) if farther else max(self._mean, run.way)) - run.way
        return fmean([*same, self._mean])
