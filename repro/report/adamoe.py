"""Numbers of the study of AdaMoE's headline, shared by its table and the claims of that paper."""

from repro.report.schemes import Number, SchemeRow, performance, scheme_rows
from repro.results.published import Published
from repro.results.run import RunResult

STUDY = "adamoe"
BASELINE = "plain"
FRACTIONS = ("accuracy", "acc_norm")
"""Metrics that go up to 1; the others have points of their own."""


def schemes(published: Published) -> list[SchemeRow]:
    """Return the row of every variant of the study, compared with plain fine-tuning."""
    return list(scheme_rows(published, STUDY, lambda scheme: BASELINE))


def model(row: SchemeRow) -> str | None:
    """Return the family of a row's model; the experts of a `mixtral` are its own, others' were made here."""
    sections = [run.config.get("model") for run in (*row.runs, *row.baseline_runs)]
    families = {str(one["backbone"]) for one in sections if isinstance(one, dict) and "backbone" in one}
    return ", ".join(sorted(families)) or None


def flops_eval(run: RunResult) -> float | None:
    """Return the FLOPs of the forward pass per token of the validation split, as routed after training."""
    return run.flops_eval.per_token


def norm_flops(row: SchemeRow) -> float | None:
    """Return the FLOPs at evaluation relative to the baseline's."""
    return row.relative_to_baseline(flops_eval)


def flops_saved(row: SchemeRow) -> list[float]:
    """Return the share of the baseline's FLOPs that each run saves."""
    return [1 - mine / theirs for mine, theirs in _pairs(row, flops_eval)]


def gains(row: SchemeRow) -> list[float]:
    """Return the points of the metric by which each run is better than the baseline's; worse is negative."""
    if not row.runs:
        return []
    metric = row.runs[0].metric
    scale = 100 if metric.name in FRACTIONS else 1
    pairs = _pairs(row, performance)
    if metric.higher_is_better:
        return [scale * (mine - theirs) for mine, theirs in pairs]
    return [scale * (theirs - mine) for mine, theirs in pairs]


def _pairs(row: SchemeRow, number: Number) -> list[tuple[float, float]]:
    """Pair a number of each run with that of the baseline's run of its seed: one model started both."""
    theirs = {run.seed: number(run) for run in row.baseline_runs}
    pairs = [(number(run), theirs.get(run.seed)) for run in row.runs]
    return [(mine, other) for mine, other in pairs if mine is not None and other is not None]
