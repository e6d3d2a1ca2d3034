"""Numbers of one seed over all tasks, which claims are checked with."""

from collections.abc import Callable, Mapping

from repro import paper
from repro.records import Published
from repro.tables._schemes import SchemeRow, performance, scheme_rows, share_several
from repro.tables._statistics import mean

Rows = Mapping[str, Mapping[str, SchemeRow]]
"""Task -> variant -> row, of one seed."""


def of_seed(published: Published, seed: int) -> Published:
    """Only the runs of one seed."""
    kept = {run_id: result for run_id, result in published.results.items() if result["seed"] == seed}
    studies = {
        study: plan
        | {
            "tasks": {
                task: {
                    variant: [run_id for run_id in run_ids if run_id in kept]
                    for variant, run_ids in variants.items()
                }
                for task, variants in plan["tasks"].items()
            }
        }
        for study, plan in published.studies.items()
    }
    return Published(results=kept, studies=studies, bench=published.bench)


def by_seed(
    study: str,
    measure: Callable[[Rows], float | None],
    against: Callable[[str], str] = lambda variant: "top-2",
) -> Callable[[Published], list[float]]:
    """A number of each seed's rows; seeds for which it cannot be worked out are left out."""

    def samples(published: Published) -> list[float]:
        seeds = sorted({result["seed"] for result in published.results.values()})
        found = []
        for seed in seeds:
            rows: dict[str, dict[str, SchemeRow]] = {}
            for row in scheme_rows(of_seed(published, seed), study, against):
                if row.runs:
                    rows.setdefault(row.task, {})[row.scheme] = row
            value = measure(rows)
            if value is not None:
                found.append(value)
        return found

    return samples


def over_tasks(variant: str, get: Callable[[SchemeRow], float | None]) -> Callable[[Rows], float | None]:
    """The mean over tasks of a number of one variant's row."""

    def measure(rows: Rows) -> float | None:
        values = [get(variants[variant]) for variants in rows.values() if variant in variants]
        return mean([value for value in values if value is not None])

    return measure


def saved(get: Callable[[SchemeRow], float | None]) -> Callable[[SchemeRow], float | None]:
    """1 - ratio."""

    def value(row: SchemeRow) -> float | None:
        ratio = get(row)
        return None if ratio is None else 1 - ratio

    return value


def gain(row: SchemeRow) -> float | None:
    """How much better than the baseline, relative to it; positive is better whatever the metric."""
    ratio = row.against_baseline(performance)
    if ratio is None:
        return None
    higher = bool(row.runs[0]["metric"]["higher_is_better"])
    return ratio - 1 if higher else 1 - ratio


def slower_or_never(row: SchemeRow) -> float | None:
    """1 if top-2 reaches its loss first, or alone; 0 if not."""
    if row.target is None:
        return None
    return float(row.norm_time is None or row.norm_time > 1)


def difference_of(
    first: str, second: str, get: Callable[[SchemeRow], float | None]
) -> Callable[[Rows], float | None]:
    """The mean over tasks of a number of one variant minus that of another."""

    def measure(rows: Rows) -> float | None:
        differences = []
        for variants in rows.values():
            if first in variants and second in variants:
                left, right = get(variants[first]), get(variants[second])
                if left is not None and right is not None:
                    differences.append(left - right)
        return mean(differences)

    return measure


def rank_agreement(rows: Rows) -> float | None:
    """Spearman's correlation over tasks of our share of two-expert tokens and the paper's."""
    printed: dict[str, float] = paper.tables()["share_two"]
    ours = {}
    for task, variants in rows.items():
        share = (
            variants["adaptive"].mean(share_several("routing"))
            if "adaptive" in variants and task in printed
            else None
        )
        if share is not None:
            ours[task] = share
    if len(ours) < 3 or len(set(ours.values())) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr([printed[task] for task in ours], list(ours.values())).statistic)


def layer_time_saved(share: float) -> Callable[[Published], list[float]]:
    """Time saved by our fastest CPU or GPU back-end at a share of top-1 tokens, in every case timed."""

    def samples(published: Published) -> list[float]:
        found = []
        for case in published.bench:
            seconds = {
                row["share_top1"]: row["both_seconds"]
                for row in case["rows"]
                if row["implementation"] == "grouped"
            }
            if share in seconds and 0.0 in seconds:
                found.append(1 - seconds[share] / seconds[0.0])
        return found

    return samples
