"""Differences of two schemes on a task, seed by seed, and what they are evidence of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from repro import paper
from repro.report.claims.evidence import Evidence
from repro.report.schemes import title, trivial_reason
from repro.report.statistics import Estimate, over_seeds, over_tasks
from repro.results.run import RunResult
from repro.results.target import TargetRatio

SLOWER = 1.01
"""Least ratio of times of a miss, which counts as slower even where cheap steps keep its bound below 1."""


class Reading(NamedTuple):
    """A number of a run."""

    value: float
    is_bound: bool = False
    """Whether the true number is larger."""


def log_time(ratio: TargetRatio) -> Reading:
    """Return the log of a ratio of times; of a miss it is a bound, and more than 0."""
    if ratio.reached:
        return Reading(math.log(ratio.time))
    return Reading(math.log(max(ratio.time, SLOWER)), is_bound=True)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Differences of two schemes on a task, one for each seed that has both."""

    values: Sequence[float]
    bounds: int = 0
    """Seeds in which the first number is a lower bound."""
    other_bounds: int = 0
    """Seeds in which the other one is."""

    @property
    def estimate(self) -> Estimate | None:
        """Their mean, with an interval that is open where numbers are bounds."""
        estimate = over_seeds(self.values)
        return estimate and estimate.cut_off(below=self.other_bounds > 0, above=self.bounds > 0)

    def misses(self, task: str, mine: Sequence[str], others: Sequence[str]) -> list[str]:
        """Say which schemes missed their target, and in how many seeds."""
        return [
            f"{title(task)}: {' or '.join(schemes)} missed the target in {count} of {len(self.values)} seeds"
            for schemes, count in ((mine, self.bounds), (others, self.other_bounds))
            if count
        ]


def evidence_of(
    samples: Mapping[str, Sample], *, ratio: bool, notes: Sequence[str], is_single: bool = False
) -> Evidence:
    """Estimate each task by itself, and their mean.

    Args:
        samples: by task.
        ratio: whether the numbers are logarithms.
        is_single: whether only one task was asked for, and not all of the paper.
    """
    estimates = {title(task): sample.estimate for task, sample in samples.items()}
    items = {name: estimate for name, estimate in estimates.items() if estimate is not None}
    overall = over_tasks([sample.values for sample in samples.values()])
    if len(items) == 1:
        (overall,) = items.values()
    elif overall is not None:
        overall = overall.cut_off(
            below=any(sample.other_bounds for sample in samples.values()),
            above=any(sample.bounds for sample in samples.values()),
        )
    if ratio:
        items = {name: estimate.exp() for name, estimate in items.items()}
        overall = overall and overall.exp()
    expected = 1 if is_single else len(paper.tasks())
    return Evidence(overall=overall, items=items, expected=expected, notes=notes)


def left_out(task: str, baseline: str, runs: Sequence[RunResult]) -> list[str]:
    """Say why a task has no part in a verdict, if its baseline is no better than a trivial answer."""
    reason = trivial_reason(runs)
    return [] if reason is None else [f"left out: {title(task)} ({baseline} is no better: {reason})"]
