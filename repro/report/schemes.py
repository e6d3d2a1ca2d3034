"""The rows of a study's table: every variant of every task, compared with a baseline variant of that task."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TypeAlias

from repro import paper
from repro.report.numbers import METRIC_TITLES
from repro.report.origin import mixtures, origin_cells
from repro.report.statistics import mean, rounded
from repro.report.target import TimeToTarget, time_to_target
from repro.results.published import Published
from repro.results.run import RunResult
from repro.results.target import target_of
from repro.tasks import base as tasks

STUDY = "schemes"
BASELINE = "top-2"
DISTURBED = 0.1
"""CPU steal above which tables say so."""

Number: TypeAlias = Callable[[RunResult], float | None]
"""A number of a run; None if it was not measured."""


@dataclass(frozen=True, kw_only=True)
class SchemeRow:
    """One scheme of one task: its finished runs, the baseline's, and why others are missing."""

    task: str
    scheme: str
    """Its name in the study: a gate, or a setting of one."""
    runs: Sequence[RunResult]
    baseline: str
    """The scheme that this one is compared with."""
    baseline_runs: Sequence[RunResult]
    missing: Sequence[str]
    commands: Mapping[str, str] = field(default_factory=dict)
    """Run id -> the command that asked for it."""

    @property
    def is_of_paper(self) -> bool:
        """Whether the paper has the task: its tables have no others, and no claim is about others."""
        return self.task in paper.tasks()

    @property
    def title(self) -> str:
        """The task as the paper names it."""
        return title(self.task)

    @property
    def metric(self) -> str:
        """The metric as the paper names it."""
        name = tasks.load(self.task).METRIC
        return METRIC_TITLES.get(name, name)

    @property
    def paper(self) -> dict[str, float]:
        """The paper's row: `time`, `flops`, `performance`; empty if it has none."""
        return paper.scheme(self.task, self.scheme) or {}

    @property
    def paper_baseline(self) -> dict[str, float]:
        """The paper's top-2 row."""
        return paper.scheme(self.task, BASELINE) or {}

    @property
    def seeds(self) -> str:
        """Seeds of the runs."""
        return " ".join(str(run.seed) for run in self.runs)

    @property
    def run_ids(self) -> str:
        """Ids of the runs."""
        return " ".join(run.run_id for run in self.runs)

    @property
    def origin(self) -> dict[str, str | None]:
        """Cells of the columns `ORIGIN`."""
        return origin_cells(self.runs, self.commands)

    def values(self, number: Number) -> list[float]:
        """Return a number of every run that has it."""
        return [value for run in self.runs if (value := number(run)) is not None]

    def by_seed(self, number: Number) -> str:
        """Return a number of every run as text, with `-` for a run that lacks it."""
        return spaced(map(number, self.runs))

    def mean(self, number: Number) -> float | None:
        """Return the mean of a number over the runs."""
        return mean(self.values(number))

    def baseline_mean(self, number: Number) -> float | None:
        """Return the mean of a number over the baseline's runs."""
        return mean([value for run in self.baseline_runs if (value := number(run)) is not None])

    def paired(self, number: Number) -> list[float]:
        """Return a number of each run minus that of the baseline's run of its seed."""
        others = {run.seed: number(run) for run in self.baseline_runs}
        pairs = [(number(run), others.get(run.seed)) for run in self.runs]
        return [mine - other for mine, other in pairs if mine is not None and other is not None]

    def relative_to_baseline(self, number: Number) -> float | None:
        """Return the mean of a number over the runs, divided by the baseline's."""
        mine, others = self.mean(number), self.baseline_mean(number)
        return mine / others if mine is not None and others else None

    @cached_property
    def time_to_target(self) -> TimeToTarget | None:
        """Time until the loss is down to the baseline's, paired by seed; None if it cannot be compared."""
        return time_to_target(self.runs, self.baseline_runs)

    @property
    def norm_time(self) -> float | str | None:
        """Norm. Training Time as tables show it: a number, a bound, or nothing."""
        return self.time_to_target.cell if self.time_to_target else None

    @property
    def target(self) -> float | None:
        """Loss of the baseline at its budget, mean over seeds."""
        return mean([target_of(run) for run in self.baseline_runs])

    @property
    def timed_apart(self) -> bool:
        """Whether a run is known not to be timed under the load of the baseline's of its seed."""
        bases = {run.seed: run for run in self.baseline_runs}
        pairs = [(run, bases[run.seed]) for run in self.runs if run.seed in bases]
        return self.scheme != self.baseline and any(
            (run.interleaved_with is not None and base.run_id not in run.interleaved_with)
            or run.lanes != base.lanes
            or 0 in (run.fair_steps, base.fair_steps)
            for run, base in pairs
        )

    @property
    def checkpoint(self) -> str | None:
        """What the runs were fine-tuned from: a hub id, or the name of a local folder; None if nothing."""
        names = [run.checkpoint for run in self.runs if run.checkpoint]
        short = {name.split(":")[1] if name.startswith("dir:") else name for name in names}
        return ", ".join(sorted(short)) or None

    @property
    def reason(self) -> str | None:
        """Why cells of this row are empty."""
        if not self.runs:
            return "; ".join(self.missing) or "not run"
        if not self.baseline_runs:
            return f"no {self.baseline} run to compare with"
        if "linear" in {run.schedule for run in (*self.runs, *self.baseline_runs)}:
            return "no time to a target under a linear schedule"
        if self.time_to_target is None:
            return f"{self.baseline} learned nothing: its loss does not fall"
        unmeasured = [str(run.seed) for run in self.runs if performance(run) is None]
        if unmeasured:
            return f"{self.metric} of seed {', '.join(unmeasured)} is not a finite number"
        return "; ".join(self.missing) or None


def scheme_rows(
    published: Published, study: str = STUDY, baseline: Callable[[str], str] = lambda scheme: BASELINE
) -> Iterator[SchemeRow]:
    """Iterate over all rows of a study, tasks in the paper's order, schemes in the study's.

    Args:
        baseline: scheme -> the scheme that it is compared with.
    """
    schemes_by_task = published.of_study(study)
    for task in tasks_in_order(schemes_by_task):
        schemes = schemes_by_task[task]
        for scheme, runs in schemes.items():
            yield SchemeRow(
                task=task,
                scheme=scheme,
                runs=runs,
                baseline=baseline(scheme),
                baseline_runs=schemes.get(baseline(scheme), []),
                missing=published.missing(study, task, scheme),
                commands=published.studies[study].commands,
            )


def reasons(rows: Iterable[SchemeRow]) -> list[str]:
    """Build the notes of a table: a line for every task that was fine-tuned, on what it started from.

    Then one for every row that has an empty cell, and one each if times were disturbed or taken apart.
    """
    rows = list(rows)
    notes = list(dict.fromkeys(f"{row.title}: from {row.checkpoint}" for row in rows if row.checkpoint))
    notes += [
        f"{row.title}, {row.baseline}: in no verdict, {reason}"
        for row in rows
        if row.scheme == row.baseline and (reason := trivial_reason(row.runs))
    ]
    notes += [f"{row.title}, {row.scheme}: {row.reason}" for row in rows if row.reason]
    shares = [share for row in rows if (share := row.mean(cpu_steal_fraction) or 0.0) > DISTURBED]
    if shares:
        most = f"up to {max(shares):.0%} of the CPUs went to other virtual machines"
        notes.append(f"{len(shares)} rows are too slow: {most}")
    apart = [row for row in rows if row.timed_apart]
    if apart:
        notes.append(f"{len(apart)} rows were not timed in turns with {apart[0].baseline}: loads may differ")
    notes += mixtures((row.title, row.runs) for row in rows)
    return notes


def trivial_reason(runs: Sequence[RunResult]) -> str | None:
    """Say that runs of a baseline are no better than an answer that needs no model; None if they are.

    Such a task has not been learned: what schemes gain or lose on it says nothing about them.
    """
    pairs = [(run.metric, run.metric_trivial) for run in runs]
    known = [(one, other) for one, other in pairs if one.value is not None and other is not None]
    if not known:
        return None
    metric, trivial = known[0]
    sign = 1 if metric.higher_is_better else -1
    gain = sum(sign * ((one.value or 0.0) - other) for one, other in known)
    return None if gain > 0 else f"a trivial answer has {metric.name} {trivial:.4g}"


def tasks_in_order(names: Iterable[str]) -> list[str]:
    """Sort tasks as the paper orders them, then others by name."""
    order = paper.tasks()
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


@cache
def title(task: str) -> str:
    """Return the name of a task in the paper."""
    return tasks.load(task).TITLE


def spaced(values: Iterable[float | None]) -> str:
    """Join numbers of the seeds; `-` is one that was not measured, so that places stay those of the seeds."""
    return " ".join("-" if value is None else f"{rounded(value):.4g}" for value in values)


def performance(run: RunResult) -> float | None:
    """Return the task's metric, with the gate as trained."""
    return run.metric.value


def performance_top_1(run: RunResult) -> float | None:
    """Return the task's metric with the best expert alone; None for dense."""
    return run.metric_top1.value if run.metric_top1 else None


def eval_loss(run: RunResult) -> float | None:
    """Return the loss on the validation split at the end of training."""
    return run.eval_loss


def final_loss(run: RunResult) -> float | None:
    """Return the loss on the dev split at the end of training."""
    return run.dev_loss


def flops(run: RunResult) -> float | None:
    """Return the FLOPs of the forward pass per trained token, as routed."""
    return run.flops.per_token


def seconds_per_step(run: RunResult) -> float | None:
    """Return the median training seconds of a step."""
    return run.seconds_per_step


def cpu_steal_fraction(run: RunResult) -> float | None:
    """Return the share of the CPUs' time that other virtual machines took; not in older results."""
    return run.cpu_steal_fraction


def mean_experts(run: RunResult) -> float | None:
    """Return the mean number of experts per token in training; None for dense."""
    return run.routing.mean_experts if run.routing else None


def mean_experts_eval(run: RunResult) -> float | None:
    """Return the mean number of experts per token at evaluation; None for dense."""
    return run.routing_eval.mean_experts if run.routing_eval else None


def share_multi_expert(run: RunResult) -> float | None:
    """Return the share of tokens given two or more experts in training; None for dense."""
    return run.routing.share_multi_expert if run.routing else None


def share_multi_expert_eval(run: RunResult) -> float | None:
    """Return the share of tokens given two or more experts at evaluation; None for dense."""
    return run.routing_eval.share_multi_expert if run.routing_eval else None
