"""The share of tokens that were given two experts in training, task by task."""

import itertools
from collections.abc import Sequence

from repro import paper
from repro.report.claims.evidence import Evidence
from repro.report.schemes import STUDY, share_multi_expert, title
from repro.report.statistics import LEVEL, Estimate, mean, over_seeds, over_tasks
from repro.results.published import Published

_ADAPTIVE = "adaptive"


def share(published: Published) -> Evidence:
    """Measure the share of two-expert tokens of adaptive gating, mean over tasks."""
    shares = _shares(published)
    items = {title(task): over_seeds(list(by_seed.values())) for task, by_seed in shares.items()}
    return Evidence(
        overall=over_tasks([list(by_seed.values()) for by_seed in shares.values()]),
        items={name: estimate for name, estimate in items.items() if estimate is not None},
        expected=len(paper.tasks()),
    )


def share_below(published: Published, *, task: str) -> Evidence:
    """Measure the share of a task minus that of each other task, within each seed."""
    shares = _shares(published)
    mine = shares.pop(task, {})
    items = {}
    for other, by_seed in shares.items():
        differences = [mine[seed] - by_seed[seed] for seed in by_seed if seed in mine]
        estimate = over_seeds(differences)
        if estimate is not None:
            items[title(other)] = estimate
    return Evidence(items=items, unit="other tasks", expected=len(paper.tables()["share_two"]) - 1)


def order_of_shares(published: Published) -> Evidence:
    """Measure Spearman's correlation over tasks of our share of two-expert tokens and the paper's.

    The tasks are the sample: whether the correlation is one of chance is judged by all permutations of them.
    Its interval is as wide on both sides as the largest correlation that chance gives in more than 5 % of
    these, so that it leaves 0 out just where the permutation test is significant.
    """
    printed: dict[str, float] = paper.tables()["share_two"]
    shares = {task: mean(list(by_seed.values())) for task, by_seed in _shares(published).items()}
    tasks = [task for task in shares if task in printed]
    ours = [value for task in tasks if (value := shares[task]) is not None]
    if len(ours) < 3 or len(set(ours)) < 2:
        return Evidence()
    theirs = [printed[task] for task in tasks]
    rho = _spearman(ours, theirs)
    by_chance = sorted(
        (abs(_spearman(permuted, theirs)) for permuted in itertools.permutations(ours)), reverse=True
    )

    def p(least: float) -> float:
        return sum(value >= least - 1e-9 for value in by_chance) / len(by_chance)

    half = max(value for value in by_chance if p(value) >= LEVEL)
    significant = [value for value in by_chance if p(value) < LEVEL]
    overall = Estimate(
        value=rho,
        low=rho - half,
        high=rho + half,
        detectable=min(significant, default=None),
        size=len(ours),
    )
    notes = [f"p = {p(abs(rho)):.2g} by permutation of {len(ours)} tasks"]
    return Evidence(overall=overall, sample="task", notes=notes)


def _shares(published: Published) -> dict[str, dict[int, float]]:
    """Return task -> seed -> share."""
    study = published.of_study(STUDY)
    shares = {}
    for task in paper.tasks():
        runs = study.get(task, {}).get(_ADAPTIVE, [])
        by_seed = {run.seed: value for run in runs if (value := share_multi_expert(run)) is not None}
        if by_seed:
            shares[task] = by_seed
    return shares


def _spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Correlate the ranks."""
    import numpy as np
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(left), rankdata(right))[0, 1])
