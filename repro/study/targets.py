"""Let the runs of a study go on until they reach the loss of the baseline at its budget."""

from collections.abc import Callable, Sequence
from functools import partial

from repro.errors import Interrupted, named_line
from repro.results.run import read_result
from repro.results.target import target_of
from repro.run.until import TimeToLoss, execute_until
from repro.study.plan import PlannedRun
from repro.training.checkpoints import remove_checkpoints
from repro.training.state import Progress


def reach_targets(
    runs: Sequence[PlannedRun],
    baseline_of: Callable[[str], str | None],
    *,
    report: Callable[[PlannedRun, Progress], None],
    ended: Callable[[PlannedRun, TimeToLoss | str], None],
    should_stop: Callable[[], bool],
) -> dict[str, str]:
    """Continue each finished run until its loss is down to that of the baseline's run of its task and seed.

    Their steps are counted, not timed: times a step are those of the interleaved budgets. Checkpoints of
    runs that need not go on are removed.

    Args:
        baseline_of: variant of the study -> the one whose loss is its target, if any.
        report: called with the run after every step.
        ended: called with a run and when it reached the target, or why it failed.

    Returns:
        Run id -> reason, of the runs that failed.

    Raises:
        Interrupted: `should_stop` said so; a checkpoint was saved.
    """
    finished = {(run.config.task, run.config.seed, run.variant): run for run in runs if run.finished}
    failed: dict[str, str] = {}
    for run in runs:
        base = finished.get((run.config.task, run.config.seed, baseline_of(run.variant) or ""))
        if base is None or not run.finished or run.config.training.schedule == "linear":
            continue
        if run is not base:
            target = target_of(read_result(base.folder.result))
            outcome = _continued(run, target, partial(report, run), should_stop)
            ended(run, outcome)
            if isinstance(outcome, str):
                failed[run.config.run_id] = outcome
                continue
        remove_checkpoints(run.folder)
    return failed


def _continued(
    run: PlannedRun, target: float, report: Callable[[Progress], None], should_stop: Callable[[], bool]
) -> TimeToLoss | str:
    try:
        return execute_until(run.config, run.paths, target, report=report, should_stop=should_stop)
    except Interrupted:
        raise
    except Exception as error:  # of this run alone: a loss that is not finite, no memory
        return named_line(error)
