"""Numbers of the curriculum study, shared by its tables and claims.

Orders by ratios act from the second epoch on, so times a step are those of the ordered epochs alone: of each
run the median over these epochs of their median steps. The first epoch is the same work in all orders but
`length`: how far its times differ is the noise of a ratio of times.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from repro.report.schemes import SchemeRow, performance, scheme_rows
from repro.report.statistics import rounded
from repro.report.target import TimeToTarget, time_to_target
from repro.results.published import Published
from repro.results.run import RunResult

STUDY = "curriculum"
FEWEST = 3
"""Ordered epochs below which an order has not had its effect, and nothing is said about it."""


@dataclass(frozen=True, kw_only=True)
class OrderRow(SchemeRow):
    """One order of the data on one back-end, compared with the paper's on the same."""

    @property
    def order(self) -> str:
        """Its name, as `training.curriculum` has it."""
        return self.scheme.split()[0]

    @property
    def backend(self) -> str:
        """The back-end of the experts."""
        return " ".join(self.scheme.split()[1:]) or "grouped"

    @property
    def fewest_ordered(self) -> int:
        """Whole epochs behind the first, of the run that has the fewest, those of the baseline included."""
        return min((round(run.epochs) - 1 for run in (*self.runs, *self.baseline_runs)), default=0)

    @property
    def is_too_short(self) -> bool:
        """Whether a run has too few ordered epochs."""
        return self.fewest_ordered < FEWEST

    @cached_property
    def time_to_target(self) -> TimeToTarget | None:
        """Time to the baseline's loss, with times a step of ordered epochs; None if a run is too short."""
        if self.is_too_short:
            return None
        return time_to_target([_timed(run) for run in self.runs], [_timed(run) for run in self.baseline_runs])

    @property
    def reason(self) -> str | None:
        """Why cells of this row are empty."""
        if self.runs and self.baseline_runs and self.is_too_short:
            return f"{self.fewest_ordered} ordered epochs, fewer than {FEWEST}"
        return super().reason


def orders(published: Published) -> list[OrderRow]:
    """Return the row of every order of the study, compared with the curriculum on the same back-end."""

    def baseline(scheme: str) -> str:
        return " ".join(["cosine", *scheme.split()[1:]])

    return [
        OrderRow(
            task=row.task,
            scheme=row.scheme,
            runs=row.runs,
            baseline=row.baseline,
            baseline_runs=row.baseline_runs,
            missing=row.missing,
        )
        for row in scheme_rows(published, STUDY, baseline)
    ]


def inflation(row: SchemeRow) -> float | None:
    """Return the relative time to equal loss, minus 1; a lower bound if a seed missed the loss."""
    return row.time_to_target.time - 1 if row.time_to_target else None


def inflation_of_steps(row: SchemeRow) -> float | None:
    """Return the relative steps to equal loss, minus 1; a lower bound if a seed missed the loss."""
    return row.time_to_target.steps - 1 if row.time_to_target else None


def inflation_per_step(row: SchemeRow) -> float | None:
    """Return the relative time of a step of ordered epochs, minus 1."""
    return row.time_to_target.time_per_step - 1 if row.time_to_target else None


def cell(row: SchemeRow, value: float | None, digits: int = 4) -> float | str | None:
    """Return an inflation as a table shows it: a number, or a bound and how many seeds reached the loss."""
    time = row.time_to_target
    if value is None or time is None or not time.is_bound:
        return rounded(value, digits)
    return f"> {rounded(value, min(digits, 3)):g} ({time.reached} of {len(time.ratios)} reached)"


def difference(row: OrderRow) -> float | None:
    """Return the performance minus the baseline's; None if a run is too short."""
    mine, others = row.mean(performance), row.baseline_mean(performance)
    return None if mine is None or others is None or row.is_too_short else mine - others


def noise_floor(row: OrderRow, rows: Iterable[OrderRow]) -> float | None:
    """Return how far times a step of equal work differ between the orders of a row's task and back-end.

    That is the longest over the shortest median step of the first epoch, minus 1, of the seed where it is
    largest. Without `length`, whose first epoch has an order of its own; None with one order alone.
    """
    by_seed: dict[int, list[float]] = {}
    for other in rows:
        if (other.task, other.backend) == (row.task, row.backend) and other.order != "length":
            for run in other.runs:
                by_seed.setdefault(run.seed, []).append(run.seconds_per_step_by_epoch[0])
    spreads = [max(seconds) / min(seconds) - 1 for seconds in by_seed.values() if len(seconds) > 1]
    return max(spreads, default=None)


def _timed(run: RunResult) -> RunResult:
    """Return the run with the time a step of its ordered epochs in place of that of all."""
    ordered = run.seconds_per_step_by_epoch[1:]
    return run.model_copy(update={"seconds_per_step": median(ordered)}) if ordered else run
