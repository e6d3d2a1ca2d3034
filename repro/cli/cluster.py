"""`repro ablate --launcher slurm`: what a job of a cluster does, and what the command shows meanwhile."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pydantic import ValidationError

from repro.cli.console import err
from repro.cli.progress import StopRequest
from repro.cli.studies import Costs, Plans, Way, work_here
from repro.cli.study_progress import StudyDisplay, TimeLeft, came_to, title
from repro.errors import Interrupted, UserError
from repro.machine import available_memory
from repro.results.base import describe
from repro.results.run import RunResult
from repro.run.scales import JobSettings, job_settings_of
from repro.study.board import Work
from repro.study.execute import Memory, execute
from repro.study.failures import Failures
from repro.study.jobs import Jobs
from repro.study.lanes import default_lanes
from repro.study.plan import PlannedRun
from repro.study.scheduler import QUEUED, Scheduler, scheduler_of
from repro.study.seat import Outcome
from repro.study.time_left import RunSoFar
from repro.training.state import Progress

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


@dataclass(frozen=True, kw_only=True)
class Working:
    """How each job works on its machine, as the options of the command say; None: as there."""

    lanes: int | None
    threads: int | None
    turns: int
    at_once: int | None

    def cpus(self, gpus: int) -> int:
        """Return the CPUs that a job needs: threads for each lane, of which there is one for each GPU."""
        return (self.lanes or max(gpus, 1)) * (self.threads or 1)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a job does: all of the studies that no other job does."""

    plans: Plans
    working: Working
    memory: float | None
    """Bytes that the job may have; None: all that are free."""
    failures: Failures

    def __call__(self) -> None:
        """Work until nothing is left; if the time is up before, save checkpoints and be queued again."""
        costs, working = Costs(), self.working
        limits = [limit for limit in (available_memory(), self.memory) if limit is not None]
        memory = Memory(
            of_run=lambda run: costs.of(run).memory_bytes,
            available=min(limits, default=None),
            at_once=working.at_once,
        )
        lanes = default_lanes(working.lanes, working.threads, working.turns)
        notified = _Notice()
        try:
            execute(self.plans, lanes, memory, _Log(), notified, self.failures)
        except Interrupted:
            notified.hand_over()

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit queues in place of a job whose time is up: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Notice:
    """Becomes true when the scheduler says that a job has to make room, or that its time is up."""

    def __init__(self) -> None:
        from submitit import JobEnvironment

        self._number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        self._came = False
        self._submitit = signal.signal(self._number, self._handle)

    def __call__(self) -> bool:
        return self._came

    def hand_over(self) -> None:
        """Let submitit do what it would have done at once: queue the job again, and end this process."""
        assert callable(self._submitit)
        self._submitit(self._number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = True


class _Log:
    """Prints into the output of a job what its runs come to."""

    def started(self, run: PlannedRun, until: float | None) -> None:
        """Tell of a run that begins, or goes on to a target."""
        err.print(f"{title(run)} begins" if until is None else f"{title(run)} goes on to {until:.4g}")

    def assigned(self, lane: int, run: PlannedRun | None, work: Work) -> None:
        """Tell nothing of lanes."""

    def stepped(self, run: PlannedRun, progress: Progress) -> None:
        """Tell nothing of steps."""

    def ended(self, run: PlannedRun, outcome: Outcome) -> None:
        """Tell what a run came to."""
        err.print(f"{title(run)}: {came_to(outcome)}")

    def settled(self, run: PlannedRun) -> None:
        """Tell nothing of what is left."""


class _Waiting:
    """Shows what the jobs are at, and what the runs come to."""

    def __init__(self, display: StudyDisplay) -> None:
        self._display = display
        self._last = ""

    def states(self, states: Mapping[str, str]) -> None:
        """Print how many jobs run and wait, when that has changed."""
        counts = Counter("queued" if state == QUEUED else "running" for state in states.values())
        line = ", ".join(f"{counts[kind]} {kind}" for kind in ("running", "queued") if counts[kind])
        if line and line != self._last:
            err.print(f"jobs: {line}")
        self._last = line

    def ended(self, run: PlannedRun, outcome: RunResult | str) -> None:
        """Print what a run came to."""
        self._display.ended(run, outcome)


def scheduler_for(
    launcher: str, given: Mapping[str, object], scale: str
) -> tuple[Scheduler | None, JobSettings]:
    """Return who starts the jobs, and what they are given; nobody if the command does the runs itself.

    Args:
        given: fields of `JobSettings` as the user gave them -> value, or None; else the scale's hold.

    Raises:
        UserError: the launcher is unknown or not installed, an option has no effect on it, or the scale's
            settings are wrong.
    """
    settings = job_settings_of(scale)
    chosen = {name: value for name, value in given.items() if value is not None}
    scheduler = None if launcher == "local" else scheduler_of(launcher)
    without = [] if launcher == "slurm" else [*chosen] if scheduler is None else ["partition"]
    if idle := [f"--{name}" for name in without if name in chosen]:
        raise UserError(f"{', '.join(idle)}: no effect with --launcher {launcher}; give --launcher slurm")
    try:
        return scheduler, JobSettings.model_validate(settings.model_dump() | chosen)
    except ValidationError as error:
        raise UserError(f"--{describe(error)}") from error


def way_of(
    plans: Plans, scale: Path, working: Working, scheduler: Scheduler | None, settings: JobSettings
) -> Way:
    """Return the way in which runs are done: by this command, or by jobs.

    Args:
        scale: the folder of the scale's results.

    Raises:
        UserError: a record of earlier jobs is damaged.
    """
    if scheduler is None:
        lanes = default_lanes(working.lanes, working.threads, working.turns)
        return partial(work_here, lanes=lanes, at_once=working.at_once)
    jobs = Jobs(plans, scale, scheduler)
    return partial(work_in_jobs, jobs=jobs, settings=settings, working=working)


def work_in_jobs(
    plans: Plans,
    missing: Sequence[PlannedRun],
    stop: StopRequest,
    *,
    jobs: Jobs,
    settings: JobSettings,
    working: Working,
) -> dict[str, str]:
    """Submit the jobs that are missing, and wait for all.

    Returns:
        Run id -> reason, of the runs that are not done.

    Raises:
        UserError: the scheduler refuses the jobs.
        Interrupted: by Ctrl-C; the jobs go on.
    """
    earlier = jobs.states()
    if earlier:
        err.print(f"jobs of an earlier command: {' '.join(earlier)}")

    def share(failures: Failures) -> Callable[[], None]:
        memory = None if settings.memory is None else 1e9 * settings.memory
        return Share(plans=plans, working=working, memory=memory, failures=failures)

    new = jobs.submit(share, settings, working.cpus(settings.gpus))
    if new:
        err.print(f"jobs submitted: {' '.join(new)}")
    runs = {
        run.config.run_id: RunSoFar(kind=(run.config.task, run.variant), cost=1.0, may_go_on=False)
        for run in missing
    }
    try:
        with StudyDisplay(0, len(missing), TimeLeft(runs, 0), stop) as display:
            return jobs.wait(_Waiting(display))
    except KeyboardInterrupt:
        raise Interrupted(f"stopped waiting, {len(jobs.states())} jobs go on") from None
