"""Two schemes compared seed by seed, task by task: times, operations, losses, qualities."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from repro import paper
from repro.report.adamoe import flops_eval
from repro.report.claims.evidence import Evidence
from repro.report.claims.samples import Reading, Sample, evidence_of, left_out, log_time
from repro.report.schemes import (
    BASELINE,
    eval_loss,
    flops,
    performance,
    tasks_in_order,
)
from repro.report.statistics import Estimate
from repro.results.published import Published
from repro.results.run import RunResult
from repro.results.target import target_ratio

Number: TypeAlias = Callable[[RunResult, RunResult], Reading | None]
"""A number of a run, given the baseline's run of its seed; None if it was not measured."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which schemes are compared; of several the mean is taken within each seed."""

    study: str = "schemes"
    schemes: Sequence[str]
    against: Sequence[str]
    against_study: str | None = None
    """Where the second ones are from, if it is another study."""
    baseline: str = BASELINE
    """The scheme that sets the target, and that must beat the trivial baseline."""
    task: str | None = None
    """Only this one."""
    every_task: bool = False
    """Whether tasks count that this paper does not have: for a claim of another one."""

    def pairs(self, published: Published) -> "list[tuple[str, list[_Seed]]]":
        """Return for each task what was run with the seeds that all of the schemes have."""
        mine = published.of_study(self.study)
        others = published.of_study(self.against_study or self.study)
        counted = [task for task in tasks_in_order(mine) if self.every_task or task in paper.tasks()]
        tasks = [task for task in counted if self.task in (None, task)]
        return [(task, self._seeds(mine[task], others.get(task, {}))) for task in tasks]

    def _seeds(
        self, mine: Mapping[str, Sequence[RunResult]], others: Mapping[str, Sequence[RunResult]]
    ) -> "list[_Seed]":
        runs = [_of_seeds(mine, scheme) for scheme in self.schemes]
        rivals = [_of_seeds(others, scheme) for scheme in self.against]
        baseline = _of_seeds(mine, self.baseline)
        seeds = sorted(set(baseline).intersection(*runs, *rivals))
        return [
            _Seed([one[seed] for one in runs], [one[seed] for one in rivals], baseline[seed])
            for seed in seeds
        ]


class _Seed(NamedTuple):
    """The runs of one seed."""

    mine: list[RunResult]
    others: list[RunResult]
    baseline: RunResult


def time(published: Published, **parameters: Any) -> Evidence:
    """Measure the ratio of the times to the loss of the baseline (`TargetRatio`), geometric mean.

    A run that missed the target enters with the time at which its trunk ended: what is compared is the time
    to the target or to that end. Its interval is open to the side of the miss, so that no scheme is called
    faster while a seed of it missed.
    """
    return _measured(published, Comparison(**parameters), _log_time, ratio=True)


def operations(published: Published, **parameters: Any) -> Evidence:
    """Measure the ratio of the FLOPs per trained token, geometric mean."""
    return _measured(published, Comparison(**parameters), _log(flops), ratio=True, learned=False)


def operations_at_evaluation(published: Published, **parameters: Any) -> Evidence:
    """Measure the ratio of the FLOPs per token of the validation split, geometric mean."""
    return _measured(published, Comparison(**parameters), _log(flops_eval), ratio=True, learned=False)


def loss(published: Published, **parameters: Any) -> Evidence:
    """Measure the difference of the losses on the validation split, in nats.

    The loss is the one quality that all tasks have: the negative log likelihood of what is to be predicted.
    Its differences add up over tasks, and 0.01 nats are 1 % of perplexity everywhere; a relative loss would
    depend on the entropy that no model can remove. Accuracy, BLEU and perplexity have no common mean.
    """
    return _measured(published, Comparison(**parameters), _plain(eval_loss))


def quality(published: Published, **parameters: Any) -> Evidence:
    """Measure the difference in the metric of one task, in its units; positive is better."""

    def better(run: RunResult) -> float | None:
        value = performance(run)
        return value if value is None or run.metric.higher_is_better else -value

    return _measured(published, Comparison(**parameters), _plain(better))


def quality_by_rival(published: Published, *, against: Sequence[str], **parameters: Any) -> Evidence:
    """Measure the same against each of several schemes by itself: they are the items."""
    items: dict[str, Estimate] = {}
    notes: list[str] = []
    for rival in against:
        evidence = quality(published, against=[rival], **parameters)
        if evidence.overall is not None:
            items[rival] = evidence.overall
        notes += [note for note in evidence.notes if note not in notes]
    return Evidence(items=items, unit="thresholds", expected=len(against), notes=notes)


def _measured(
    published: Published,
    comparison: Comparison,
    number: Number,
    *,
    ratio: bool = False,
    learned: bool = True,
) -> Evidence:
    """Compare the schemes on every task.

    Args:
        ratio: whether the numbers are logarithms.
        learned: whether only tasks count whose baseline beats the trivial answer.
    """
    samples: dict[str, Sample] = {}
    notes: list[str] = []
    for task, seeds in comparison.pairs(published):
        reasons = left_out(task, comparison.baseline, [seed.baseline for seed in seeds])
        if reasons and learned:
            notes += reasons
            continue
        sample = _sample(seeds, number)
        if sample.values:
            samples[task] = sample
            notes += sample.misses(task, comparison.schemes, comparison.against)
    return evidence_of(samples, ratio=ratio, notes=notes, is_single=comparison.task is not None)


def _sample(seeds: Sequence[_Seed], number: Number) -> Sample:
    values, bounds, other_bounds = [], 0, 0
    for seed in seeds:
        mine = [number(run, seed.baseline) for run in seed.mine]
        others = [number(run, seed.baseline) for run in seed.others]
        if None in mine or None in others:
            continue
        readings, rivals = [one for one in mine if one], [one for one in others if one]
        values.append(_mean(readings) - _mean(rivals))
        bounds += any(one.is_bound for one in readings)
        other_bounds += any(one.is_bound for one in rivals)
    return Sample(values=values, bounds=bounds, other_bounds=other_bounds)


def _mean(readings: Sequence[Reading]) -> float:
    return sum(reading.value for reading in readings) / len(readings)


def _of_seeds(schemes: Mapping[str, Sequence[RunResult]], scheme: str) -> dict[int, RunResult]:
    return {run.seed: run for run in schemes.get(scheme, ())}


def _log_time(run: RunResult, baseline: RunResult) -> Reading | None:
    ratio = target_ratio(run, baseline)
    return None if ratio is None else log_time(ratio)


def _plain(number: Callable[[RunResult], float | None]) -> Number:
    def reading(run: RunResult, baseline: RunResult) -> Reading | None:
        value = number(run)
        return None if value is None else Reading(value)

    return reading


def _log(number: Callable[[RunResult], float | None]) -> Number:
    def reading(run: RunResult, baseline: RunResult) -> Reading | None:
        value = number(run)
        return Reading(math.log(value)) if value else None

    return reading
