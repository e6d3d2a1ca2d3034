"""Norm. Training Time over seeds: what tables show of the ratios that `results.target` works out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from repro.report.statistics import interval, mean, rounded
from repro.results.run import RunResult
from repro.results.target import TargetRatio, target_ratio


@dataclass(frozen=True, kw_only=True)
class TimeToTarget:
    """How long a scheme takes to the baseline's loss, paired by seed; at least one ratio.

    Means are geometric: twice as long and half as long cancel out. A seed that missed its target enters with
    the lower bound of its ratio, so the mean is a lower bound, too.
    """

    ratios: Sequence[TargetRatio]

    @property
    def reached(self) -> int:
        """Seeds that reached the target."""
        return sum(ratio.reached for ratio in self.ratios)

    @property
    def is_bound(self) -> bool:
        """Whether a seed missed its target."""
        return self.reached < len(self.ratios)

    @property
    def time(self) -> float:
        """Mean ratio of times, or a lower bound of it."""
        return _geometric_mean([ratio.time for ratio in self.ratios])

    @property
    def steps(self) -> float:
        """Mean ratio of steps, or a lower bound of it."""
        return _geometric_mean([ratio.steps for ratio in self.ratios])

    @property
    def time_per_step(self) -> float:
        """Mean ratio of median times a step."""
        return _geometric_mean([ratio.time_per_step for ratio in self.ratios])

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean ratio of times (t interval of the logs); None with a miss or one seed."""
        if self.is_bound:
            return None
        logs = [math.log(ratio.time) for ratio in self.ratios]
        half = interval(logs)
        if half is None:
            return None
        centre = sum(logs) / len(logs)
        return math.exp(centre - half), math.exp(centre + half)

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval."""
        ends = self.interval
        return None if ends is None else (ends[1] - ends[0]) / 2

    @property
    def cell(self) -> float | str:
        """What a table shows: a number, or a bound and how many seeds reached the target."""
        if not self.is_bound:
            return rounded(self.time)
        return f"> {rounded(self.time, 3):g} ({self.reached} of {len(self.ratios)} reached)"

    @property
    def by_seed(self) -> str:
        """The ratio of every seed, with `>` for a bound."""
        return " ".join(f"{'' if ratio.reached else '>'}{ratio.time:.4g}" for ratio in self.ratios)


def time_to_target(runs: Sequence[RunResult], baseline: Sequence[RunResult]) -> TimeToTarget | None:
    """Pair runs with the baseline's by seed; None if no pair can be compared."""
    by_seed = {run.seed: run for run in baseline}
    pairs = [(run, by_seed[run.seed]) for run in runs if run.seed in by_seed]
    ratios = [ratio for run, base in pairs if (ratio := target_ratio(run, base)) is not None]
    return TimeToTarget(ratios=ratios) if ratios else None


def _geometric_mean(values: Sequence[float]) -> float:
    logs = mean([math.log(value) for value in values])
    assert logs is not None, "there is a ratio"
    return math.exp(logs)
