"""Numbers of one seed over all tasks, which claims are checked with."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from repro import paper
from repro.report.schemes import SchemeRow, performance, scheme_rows, share_multi_expert
from repro.report.statistics import mean
from repro.results.published import Published
from repro.results.study import Study

Rows: TypeAlias = Mapping[str, Mapping[str, SchemeRow]]
"""Task -> variant -> row, of one seed."""
RowNumber: TypeAlias = Callable[[SchemeRow], float | None]
"""A number of a row; None if it was not measured."""
Measure: TypeAlias = Callable[[Rows], float | None]
"""A number of the rows of one seed; None if it cannot be worked out."""
Samples: TypeAlias = Callable[[Published], list[float]]
"""A number, once for every seed that has it."""


def of_seed(published: Published, seed: int) -> Published:
    """Return only the runs of one seed."""
    results = {run_id: result for run_id, result in published.results.items() if result.seed == seed}

    def kept(study: Study) -> Study:
        tasks = {
            task: {
                variant: [run_id for run_id in run_ids if run_id in results]
                for variant, run_ids in variants.items()
            }
            for task, variants in study.tasks.items()
        }
        return study.model_copy(update={"tasks": tasks})

    studies = {name: kept(study) for name, study in published.studies.items()}
    return Published(results=results, studies=studies, bench=published.bench)


def by_seed(
    study: str, measure: Measure, baseline: Callable[[str], str] = lambda variant: "top-2"
) -> Samples:
    """Measure each seed's rows of a study; seeds without that number are left out."""

    def samples(published: Published) -> list[float]:
        values = []
        for seed in sorted({result.seed for result in published.results.values()}):
            rows: dict[str, dict[str, SchemeRow]] = {}
            for row in scheme_rows(of_seed(published, seed), study, baseline):
                if row.runs:
                    rows.setdefault(row.task, {})[row.scheme] = row
            values.append(measure(rows))
        return [value for value in values if value is not None]

    return samples


def over_tasks(variant: str, number: RowNumber) -> Measure:
    """Average a number of one variant's row over tasks."""

    def measure(rows: Rows) -> float | None:
        values = [number(variants[variant]) for variants in rows.values() if variant in variants]
        return mean([value for value in values if value is not None])

    return measure


def saved(ratio: RowNumber) -> RowNumber:
    """Turn a ratio into what is saved, 1 - ratio."""

    def number(row: SchemeRow) -> float | None:
        value = ratio(row)
        return None if value is None else 1 - value

    return number


def gain(row: SchemeRow) -> float | None:
    """Return how much better than the baseline, relative to it; positive is better whatever the metric."""
    ratio = row.relative_to_baseline(performance)
    if ratio is None:
        return None
    return ratio - 1 if row.runs[0].metric.higher_is_better else 1 - ratio


def slower_or_never(row: SchemeRow) -> float | None:
    """Return 1 if top-2 reaches its loss first, or alone; 0 if not."""
    if row.target is None:
        return None
    return float(row.norm_time is None or row.norm_time > 1)


def difference_of(first: str, second: str, number: RowNumber) -> Measure:
    """Average a number of one variant minus that of another over tasks."""

    def measure(rows: Rows) -> float | None:
        differences = []
        for variants in rows.values():
            if first in variants and second in variants:
                left, right = number(variants[first]), number(variants[second])
                if left is not None and right is not None:
                    differences.append(left - right)
        return mean(differences)

    return measure


def rank_agreement(rows: Rows) -> float | None:
    """Return Spearman's correlation over tasks of our share of two-expert tokens and the paper's."""
    printed: dict[str, float] = paper.tables()["share_two"]
    shares = {
        task: variants["adaptive"].mean(share_multi_expert)
        for task, variants in rows.items()
        if "adaptive" in variants and task in printed
    }
    ours = {task: share for task, share in shares.items() if share is not None}
    if len(ours) < 3 or len(set(ours.values())) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr([printed[task] for task in ours], list(ours.values())).statistic)


def layer_time_saved(share: float) -> Samples:
    """Return the time saved by our fastest back-end at a share of top-1 tokens, in every case timed."""

    def samples(published: Published) -> list[float]:
        values = []
        for case in published.bench:
            seconds = {
                row.share_top1: row.both_seconds for row in case.rows if row.implementation == "grouped"
            }
            if share in seconds and 0.0 in seconds:
                values.append(1 - seconds[share] / seconds[0.0])
        return values

    return samples
