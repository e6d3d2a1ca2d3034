"""Do the runs of a study: those that are missing, interleaved or one after the other."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby

from repro.errors import Interrupted, UserError, named_line, one_line
from repro.run.execute import execute as execute_run
from repro.run.reopen import check_model
from repro.study.interleave import Outcome, interleave
from repro.study.plan import PlannedRun
from repro.training.state import Progress


def execute(
    runs: Sequence[PlannedRun],
    *,
    turns: int = 0,
    at_once: int = 16,
    started: Callable[[int, PlannedRun], None],
    report: Callable[[PlannedRun, Progress], None],
    ended: Callable[[PlannedRun, Outcome], None],
    should_stop: Callable[[], bool],
) -> dict[str, str]:
    """Do the runs; a run that fails stops only those that start from its model.

    Args:
        turns: steps after which the next run of a task and seed goes on; 0 does one run after the other.
        at_once: most runs that are interleaved; every one of them needs its memory.
        started: called with the number of the run (from 0) and the run.
        report: called with the run after every step.
        ended: called with the run and its result, or why it failed.

    Returns:
        Run id -> reason, of the runs that failed.

    Raises:
        Interrupted: `should_stop` said so; a checkpoint was saved.
    """
    failed: dict[str, str] = {}

    def end(run: PlannedRun, outcome: Outcome) -> None:
        if isinstance(outcome, str):
            failed[run.config.run_id] = outcome
        ended(run, outcome)

    number = 0
    for group in _groups(runs, at_once if turns else 1):
        ready = []
        for run in group:
            started(number, run)
            number += 1
            reason = _cannot_start(run)
            if reason is None:
                ready.append(run)
            else:
                end(run, reason)
        if len(ready) == 1:
            end(ready[0], _alone(ready[0], partial(report, ready[0]), should_stop))
        elif ready:
            interleave(ready, turns, report=report, ended=end, should_stop=should_stop)
    return failed


def _groups(runs: Sequence[PlannedRun], size: int) -> Iterator[Sequence[PlannedRun]]:
    """Split runs into groups that are interleaved: at most `size` of one task, seed and initial model."""

    def compared(run: PlannedRun) -> tuple[str, int, str]:
        return run.config.task, run.config.seed, run.init_from.config.run_id if run.init_from else ""

    for _, group in groupby(runs, compared):
        together = list(group)
        for start in range(0, len(together), size):
            yield together[start : start + size]


def _alone(run: PlannedRun, report: Callable[[Progress], None], should_stop: Callable[[], bool]) -> Outcome:
    """Do one run in this process."""
    try:
        return execute_run(run.config, run.paths, report=report, should_stop=should_stop)
    except Interrupted:
        raise
    except Exception as error:  # of this run alone: bad data, a loss that is not finite, no memory
        return named_line(error)


def _cannot_start(run: PlannedRun) -> str | None:
    """Say why there is no model to start from, where one is needed; None if the run can start."""
    first = run.init_from
    if first is None:
        return None
    which = f"the run that it starts from, {first.config.run_id},"
    if not first.finished:
        return f"{which} is not finished"
    if not first.folder.model.is_dir():
        return f"{which} has no model any more; delete its folder to train it again"
    try:
        check_model(first.folder)
    except UserError as error:
        return f"{which} has a damaged model: {one_line(error)}"
    return None
