"""Random order against the curriculum (Table 6), as that table measures it: over ordered epochs."""

from repro.report.claims.evidence import Evidence
from repro.report.claims.samples import Sample, evidence_of, left_out, log_time
from repro.report.curriculum import OrderRow, orders
from repro.report.schemes import eval_loss
from repro.results.published import Published


def time_in_random_order(published: Published) -> Evidence:
    """Measure the ratio of the times to the loss of the curriculum, geometric mean over seeds and tasks."""
    rows, notes = _learned(published)
    samples = {}
    for row in rows:
        readings = [log_time(ratio) for ratio in row.time_to_target.ratios] if row.time_to_target else []
        if readings:
            sample = Sample(
                values=[reading.value for reading in readings],
                bounds=sum(reading.is_bound for reading in readings),
            )
            samples[row.task] = sample
            notes += sample.misses(row.task, ["random order"], ["cosine"])
    return evidence_of(samples, ratio=True, notes=notes)


def loss_in_random_order(published: Published) -> Evidence:
    """Measure the difference of the validation losses, in nats."""
    rows, notes = _learned(published)
    values = {row.task: row.paired(eval_loss) for row in rows}
    samples = {task: Sample(values=differences) for task, differences in values.items() if differences}
    return evidence_of(samples, ratio=False, notes=notes)


def _learned(published: Published) -> tuple[list[OrderRow], list[str]]:
    """Return the tasks with enough ordered epochs whose baseline beats the trivial answer; why not others."""
    rows, notes = [], []
    for row in orders(published):
        if row.scheme == "random" and row.is_of_paper and row.runs and row.baseline_runs:
            reasons = left_out(row.task, row.baseline, row.baseline_runs)
            if row.is_too_short:
                reasons.append(f"left out: {row.title} ({row.reason})")
            notes += reasons
            rows += [] if reasons else [row]
    return rows, notes
