"""Share the runs of studies out to jobs: those of earlier commands, and new ones for what has none.

Every job does the whole study, as a command on its machine would: they share the work by their claims. What
is known of jobs that were submitted together is in a folder, `jobs/<name>/` of the scale.
"""

import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

from repro.errors import UserError
from repro.results.files import write_json
from repro.results.jobs import Submission
from repro.results.run import RunResult, read_result
from repro.run.scales import JobSettings
from repro.study.failures import Failures
from repro.study.plan import PlannedRun, together
from repro.study.scheduler import QUEUED, Scheduler, deaf_to_the_terminal
from repro.study.targets import baselines_of, loss_to_reach

_RECORD = "submission.json"
_FAILED = "failed"
_TRACE = "Traceback (most recent call last)"


class Watcher(Protocol):
    """Who is told how far the jobs are."""

    def states(self, states: Mapping[str, str]) -> None:
        """Tell which jobs are not over; id -> state."""

    def ended(self, run: PlannedRun, outcome: RunResult | str) -> None:
        """Tell what a run came to: its result, or why it failed."""


@dataclass(frozen=True)
class _Batch:
    """Jobs that were submitted together."""

    folder: Path
    submission: Submission
    is_own: bool
    """Whether they do none but the runs of this command."""

    def failures(self) -> Failures:
        return Failures(self.folder / _FAILED)


class Jobs:
    """The jobs that work on the runs of studies."""

    def __init__(self, plans: Mapping[str, Sequence[PlannedRun]], scale: Path, scheduler: Scheduler) -> None:
        """Find those that earlier commands submitted; of what is over nothing is kept.

        Args:
            plans: study -> its runs.
            scale: the folder of the scale's results.

        Raises:
            UserError: a record of them is damaged.
        """
        self._name = "-".join(plans)
        self._runs = together(plans.values())
        self._baselines = baselines_of(plans)
        self._folder = scale / "jobs"
        self._scheduler = scheduler
        self._batches = self._earlier()

    def submit(
        self, work: Callable[[Failures], Callable[[], object]], settings: JobSettings, cpus: int
    ) -> list[str]:
        """Submit a job for each comparison that is not done and has none, and return their ids.

        Ctrl-C does not reach jobs that begin, nor this process before all is written down.

        Args:
            work: makes what each of them does, given what they tell each other.
            cpus: of each job.

        Raises:
            UserError: the scheduler refuses them, or the folder cannot be written.
        """
        left = self._left_by_comparison()
        new = min(settings.jobs or len(left), len(left)) - sum(
            min(len(states), sum(runs <= set(batch.submission.runs) for runs in left))
            for batch, states in self._states()
        )
        if new <= 0:
            return []
        folder = self._new_folder()
        name = f"repro-{self._name}"
        with deaf_to_the_terminal():
            try:
                shared = work(Failures(folder / _FAILED))
                jobs = self._scheduler.submit(shared, new, folder, name=name, settings=settings, cpus=cpus)
            except UserError:
                self._remove(folder)
                raise
            submission = Submission(
                launcher=self._scheduler.launcher,
                host=socket.gethostname(),
                jobs=jobs,
                runs=[run.config.run_id for run in self._runs],
            )
            try:
                write_json(folder / _RECORD, submission.to_json())
            except OSError as error:
                raise UserError(
                    f"{folder}: cannot be written ({error.strerror}); jobs: {' '.join(jobs)}"
                ) from error
        self._batches.append(_Batch(folder, submission, is_own=True))
        return jobs

    def states(self) -> dict[str, str]:
        """Return the states of the jobs that are not over; id -> state."""
        return {job: state for _, states in self._states() for job, state in states.items()}

    def wait(self, watcher: Watcher) -> dict[str, str]:
        """Wait until no job is left; those that would find nothing to do are taken out of the queue.

        Jobs that do other runs, too, are left alone when the runs of this command are done.

        Returns:
            Run id -> reason, of the runs that are not done.
        """
        untold = [run for run in self._runs if not _is_finished(run)]
        were_over = False
        while True:
            by_batch = self._states()
            watcher.states({job: state for _, states in by_batch for job, state in states.items()})
            untold = [run for run in untold if not self._tell(run, watcher)]
            is_open = bool(untold) or any(map(self._is_open, self._runs))
            waited_for = [states for batch, states in by_batch if is_open or batch.is_own]
            # A job that is queued again, and a file that another machine wrote, may be late.
            if not any(waited_for) and (were_over or not is_open):
                return self._end()
            were_over = not any(waited_for)
            if not is_open:
                queued = [job for states in waited_for for job, state in states.items() if state == QUEUED]
                self._scheduler.cancel(queued)
            time.sleep(self._scheduler.poll_seconds)

    def _states(self) -> list[tuple[_Batch, dict[str, str]]]:
        return [
            (batch, self._scheduler.states(batch.submission.jobs, batch.folder)) for batch in self._batches
        ]

    def _earlier(self) -> list[_Batch]:
        run_ids = {run.config.run_id for run in self._runs}
        batches = []
        for record in sorted(self._folder.glob(f"*/{_RECORD}")):
            try:
                submission = Submission.read(record)
            except UserError as error:
                if not record.exists():  # another command has removed it
                    continue
                raise UserError(f"{error}; delete its folder when its jobs are over") from error
            if not self._can_ask(submission, record):
                continue
            if not self._scheduler.states(submission.jobs, record.parent):
                self._remove(record.parent)
            elif run_ids & set(submission.runs):
                batches.append(_Batch(record.parent, submission, is_own=set(submission.runs) <= run_ids))
        return batches

    def _can_ask(self, submission: Submission, record: Path) -> bool:
        """Tell whether the states of jobs can be asked for: they are this user's, of this scheduler."""
        try:
            is_of_user = record.stat().st_uid == os.getuid()
        except OSError:  # another command has removed it
            return False
        is_seen = submission.launcher != "processes" or submission.host == socket.gethostname()
        return submission.launcher == self._scheduler.launcher and is_of_user and is_seen

    def _new_folder(self) -> Path:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return next(folder for n in count(1) if _is_made(folder := self._folder / f"{self._name}-{n}"))
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written ({error.strerror})") from error

    def _remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # there are others
            self._folder.rmdir()

    def _left_by_comparison(self) -> list[set[str]]:
        """Return the ids of the runs for which there is something to do, by task and seed."""
        left: dict[tuple[str, int], set[str]] = {}
        for run in filter(self._is_left, self._runs):
            left.setdefault((run.config.task, run.config.seed), set()).add(run.config.run_id)
        return list(left.values())

    def _is_left(self, run: PlannedRun) -> bool:
        """Tell whether there is something to do for a run."""
        return not _is_finished(run) or loss_to_reach(run, self._baselines) is not None

    def _is_open(self, run: PlannedRun) -> bool:
        """Tell whether a job may still do something for a run."""
        return self._failure(run) is None and self._is_left(run)

    def _failure(self, run: PlannedRun) -> str | None:
        told = (batch.failures().reason(run.config.run_id) for batch in reversed(self._batches))
        return next(filter(None, told), None)

    def _tell(self, run: PlannedRun, watcher: Watcher) -> bool:
        """Tell what a run came to, if it came to something; return whether it did."""
        if _is_finished(run):
            watcher.ended(run, read_result(run.folder.result))
        elif (reason := self._failure(run)) is not None:
            watcher.ended(run, reason)
        else:
            return False
        return True

    def _end(self) -> dict[str, str]:
        """Return why runs are not done; if all are, nothing is kept of the jobs."""
        unknown = f"no job finished it{self._last_words()}"
        failed = {
            run.config.run_id: self._failure(run) or unknown for run in self._runs if self._is_left(run)
        }
        if not failed:
            for batch in self._batches:
                if batch.is_own:
                    self._remove(batch.folder)
        return failed

    def _last_words(self) -> str:
        """Say how the last job ended that ended with an error, and where all that jobs printed is."""
        if not self._batches:
            return ""
        folder = self._batches[-1].folder
        logs = sorted(folder.glob("*_log.err"), key=lambda log: log.stat().st_mtime, reverse=True)
        texts = (log.read_text(encoding="utf-8", errors="replace") for log in logs)
        trace = next((text for text in texts if _TRACE in text), "")
        reason = f" ({trace.splitlines()[-1]})" if trace else ""
        return f"{reason}; what jobs printed is in {folder}"


def _is_made(folder: Path) -> bool:
    """Make a folder, unless it is there already; return whether it is new."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _is_finished(run: PlannedRun) -> bool:
    """Look for the result of a run by listing its folder: a shared file system then looks itself."""
    try:
        return run.folder.result in run.folder.path.iterdir()
    except OSError:
        return False
