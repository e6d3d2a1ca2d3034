"""What is known of the runs of a study when a command begins: estimates, and what finished runs needed."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from repro.results.run import RunResult, read_result
from repro.study.plan import PlannedRun
from repro.study.targets import Baselines, loss_to_reach, other_baselines
from repro.study.time_left import RunSoFar
from repro.training.schedule import Budget


def so_far(
    runs: Sequence[PlannedRun], baselines: Baselines, estimates: Mapping[str, float]
) -> dict[str, RunSoFar]:
    """Describe runs, for an estimate of the time that they take.

    Args:
        estimates: run id -> seconds, of those that are not finished.

    Returns:
        Run id -> what is known of the run.
    """
    results = {run.config.run_id: read_result(run.folder.result) for run in runs if run.finished}
    costs = _costs(runs, estimates, results)
    return {
        run.config.run_id: _describe(run, costs[_kind(run)], baselines, results.get(run.config.run_id))
        for run in runs
    }


def _kind(run: PlannedRun) -> Hashable:
    return run.config.task, run.variant


def _costs(
    runs: Sequence[PlannedRun], estimates: Mapping[str, float], results: Mapping[str, RunResult]
) -> dict[Hashable, float]:
    """Return the seconds of a budget by kind: as finished runs took, else as estimated.

    Both are brought to one measure by the kinds for which there are both.
    """
    estimated: dict[Hashable, list[float]] = {}
    measured: dict[Hashable, list[float]] = {}
    for run in runs:
        if (result := results.get(run.config.run_id)) is not None:
            measured.setdefault(_kind(run), []).append(result.train_seconds)
        else:
            estimated.setdefault(_kind(run), []).append(estimates[run.config.run_id])
    both = estimated.keys() & measured.keys()
    taken = math.fsum(fmean(measured[kind]) for kind in both)
    measure = math.fsum(fmean(estimated[kind]) for kind in both) / taken if taken else 1.0
    return {kind: fmean(seconds) for kind, seconds in estimated.items()} | {
        kind: measure * fmean(seconds) for kind, seconds in measured.items()
    }


def _describe(run: PlannedRun, cost: float, baselines: Baselines, result: RunResult | None) -> RunSoFar:
    others = other_baselines(run, baselines)
    may_go_on = bool(others) and run.config.training.schedule != "linear"
    known = RunSoFar(kind=_kind(run), cost=cost, may_go_on=may_go_on)
    if result is None:
        return known
    budget = Budget.of(replace(run.config.training, steps=result.steps), 1)
    are_targets_known = all(base.finished for base in others)
    is_over = not may_go_on or (are_targets_known and loss_to_reach(run, baselines) is None)
    way = max(0, result.curve[-1].step - budget.trunk_steps) / budget.total_steps
    return replace(known, steps=budget.total_steps, share=1.0, way=way, is_over=is_over)
