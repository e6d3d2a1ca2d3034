"""Do the runs of studies that are missing, then let them go on to the loss of their baselines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from repro.errors import UserError, one_line
from repro.results.run import read_result
from repro.run.launch import is_in_use
from repro.run.reopen import check_model
from repro.study.board import Work
from repro.study.comparison import Comparison, comparisons_of, job_of
from repro.study.failures import Failures
from repro.study.lanes import Lanes, work_on_lanes
from repro.study.plan import PlannedRun, together
from repro.study.seat import Job, Outcome
from repro.study.targets import Baselines, baselines_of, forget_trunk, loss_to_reach
from repro.training.state import Progress

_ROOM = 0.8
"""Share of the memory that is free at the start which open runs may take."""


class Watcher(Protocol):
    """Who is told how far a study is."""

    def started(self, run: PlannedRun, until: float | None) -> None:
        """Tell of a run whose process starts.

        Args:
            until: the loss that it goes on to, if its budget is done.
        """

    def assigned(self, lane: int, run: PlannedRun | None, work: Work) -> None:
        """Tell what a lane does from now on."""

    def stepped(self, run: PlannedRun, progress: Progress) -> None:
        """Tell of a training step."""

    def ended(self, run: PlannedRun, outcome: Outcome) -> None:
        """Tell what a run came to."""

    def settled(self, run: PlannedRun) -> None:
        """Tell that nothing more is done for a run: its target is reached, or cannot be."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """How many runs may be open at a time: every one of them needs its memory."""

    of_run: Callable[[PlannedRun], float]
    """Bytes that it needs."""
    available: float | None
    """Bytes at the start; None: no limit."""
    at_once: int | None = None
    """Most open runs; None: as many as there is memory for."""

    def has_room(self, run: PlannedRun, open_runs: Sequence[PlannedRun]) -> bool:
        """Tell whether a run can be opened beside others; the first always can."""
        if not open_runs:
            return True
        if self.at_once is not None and len(open_runs) >= self.at_once:
            return False
        needed = sum(self.of_run(other) for other in open_runs) + self.of_run(run)
        return self.available is None or needed <= _ROOM * self.available


def execute(
    plans: Mapping[str, Sequence[PlannedRun]],
    lanes: Lanes,
    memory: Memory,
    watcher: Watcher,
    should_stop: Callable[[], bool],
    failures: Failures | None = None,
) -> dict[str, str]:
    """Do what is missing; a run that fails stops only those that start from its model.

    Several commands may work on a study: what one of them does the others leave to it, and wait for.

    Args:
        plans: study -> its runs; a run of several of them is done once.
        should_stop: asked several times a second.
        failures: of the jobs that share the runs, of which this is one: it ends when the others do the rest.

    Returns:
        Run id -> reason, of the runs that failed.

    Raises:
        Interrupted: `should_stop` said so; checkpoints were saved.
    """
    runs = together(plans.values())
    work = Undone(runs, baselines_of(plans), lanes, memory, watcher, failures)
    try:
        work_on_lanes(lanes, [run.config.run_id for run in runs], work, work, should_stop)
    finally:
        work.release()
    return work.failed


class Undone:
    """What is left of studies: the supply of the lanes, and who is told what they do."""

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        baselines: Baselines,
        lanes: Lanes,
        memory: Memory,
        watcher: Watcher,
        failures: Failures | None = None,
    ) -> None:
        self.failed: dict[str, str] = {}
        self._runs = runs
        self._baselines = baselines
        self._lanes = lanes
        self._memory = memory
        self._watcher = watcher
        self._failures = failures
        self._comparisons = comparisons_of(runs)

    def take(self) -> Sequence[Job]:
        """Return jobs of one comparison that can begin: of one under way first, then of another.

        As many comparisons are under way as there are lanes, so that the neighbours of a run are not always
        those that it is compared with.
        """
        under_way = 0
        for comparison in self._comparisons:
            if comparison.is_done or under_way >= self._lanes.count or not comparison.take():
                continue
            jobs = self._begin(comparison)
            if jobs:
                return jobs
            under_way += bool(comparison.open)
        return ()

    def is_empty(self) -> bool:
        """Return whether all comparisons are done; for one of several jobs, whether others do the rest."""
        is_shared = self._failures is not None
        return all(one.is_done or (is_shared and one.is_done_by_another) for one in self._comparisons)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Take in what a job came to."""
        self._close(job)
        self._tell(job, outcome)

    def put_back(self, job: Job) -> None:
        """Wait for another command that is doing the run."""
        self._close(job).waiting.append(job)

    def assigned(self, lane: int, job: Job | None, work: Work) -> None:
        """Tell what a lane does from now on."""
        self._watcher.assigned(lane, None if job is None else self._runs[job.number], work)

    def stepped(self, job: Job, progress: Progress) -> None:
        """Tell of a training step."""
        self._watcher.stepped(self._runs[job.number], progress)

    def release(self) -> None:
        """Let other commands have what is left."""
        for comparison in self._comparisons:
            comparison.claim.release()

    def _close(self, job: Job) -> Comparison:
        comparison = next(found for found in self._comparisons if job in found.open)
        comparison.open.remove(job)
        return comparison

    def _tell(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, str):
            self.failed[job.config.run_id] = outcome
            if self._failures is not None:
                self._failures.add(job.config.run_id, outcome)
        self._watcher.ended(self._runs[job.number], outcome)

    def _begin(self, comparison: Comparison) -> list[Job]:
        """Take the jobs of a comparison that can begin; go on to its targets when its budgets are done."""
        jobs = self._startable(comparison)
        if not jobs and not comparison.waiting and not comparison.open:
            if not comparison.has_targets:
                comparison.has_targets = True
                self._go_on(comparison)
                jobs = self._startable(comparison)
            if not jobs and not comparison.waiting:
                for _, run in comparison.runs:
                    forget_trunk(run, self._baselines)
                comparison.is_done = True
                comparison.claim.release()
        return jobs

    def _go_on(self, comparison: Comparison) -> None:
        """Let the runs wait that have not reached the loss of their baselines."""
        for number, run in comparison.runs:
            loss = loss_to_reach(run, self._baselines)
            if loss is None:
                self._watcher.settled(run)
            else:
                comparison.waiting.append(job_of(number, run, loss))

    def _startable(self, comparison: Comparison) -> list[Job]:
        jobs = []
        for job in list(comparison.waiting):
            run = self._runs[job.number]
            if job.until is None and run.finished:  # by another command, meanwhile
                comparison.waiting.remove(job)
                self._tell(job, read_result(run.folder.result))
            elif self._has_to_wait(run, comparison):
                continue
            elif (reason := self._why_not(run)) is not None:
                comparison.waiting.remove(job)
                self._tell(job, reason)
            else:
                comparison.waiting.remove(job)
                comparison.open.append(job)
                self._watcher.started(run, job.until)
                jobs.append(job)
        return jobs

    def _why_not(self, run: PlannedRun) -> str | None:
        """Say why a run cannot be done: it failed in another job, or lacks a model; None if it can."""
        told = None if self._failures is None else self._failures.reason(run.config.run_id)
        return told or _why_no_model(run)

    def _has_to_wait(self, run: PlannedRun, comparison: Comparison) -> bool:
        """Tell whether a run waits: for a model, for another command, for a lane or for memory."""
        ahead = {job.config.run_id for job in (*comparison.waiting, *comparison.open)}
        if run.init_from is not None and run.init_from.config.run_id in ahead:
            return True
        if is_in_use(run.folder):
            return True
        open_runs = [self._runs[job.number] for other in self._comparisons for job in other.open]
        if not self._lanes.turns and len(open_runs) >= self._lanes.count:
            return True
        return not self._memory.has_room(run, open_runs)


def _why_no_model(run: PlannedRun) -> str | None:
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
