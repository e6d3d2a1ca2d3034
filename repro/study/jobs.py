"""Share the runs of studies out to jobs: those of earlier commands, and new ones for what has none.

Every job does the whole study, as a command on its machine would: they share the work by their claims. What
is known of jobs that were submitted together is in a folder, `jobs/<name>/` of the scale.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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
from repro.study.scheduler import QUEUED, Scheduler
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

        Args:
            work: makes what each of them does, given what they tell each other.
            cpus: of each job.

        Raises:
            UserError: the scheduler refuses them, or the folder cannot be written.
        """
        left = len({(run.config.task, run.config.seed) for run in self._runs if self._is_left(run)})
        new = min(settings.jobs or left, left) - len(self.states())
        if new <= 0:
            return []
        folder = self._new_folder()
        try:
            jobs = self._scheduler.submit(
                work(Failures(folder / _FAILED)),
                new,
                folder,
                name=f"repro-{self._name}",
                settings=settings,
                cpus=cpus,
            )
        except UserError:
            self._remove(folder)
            raise
        run_ids = [run.config.run_id for run in self._runs]
        submission = Submission(launcher=self._scheduler.launcher, jobs=jobs, runs=run_ids)
        try:
            write_json(folder / _RECORD, submission.to_json())
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); jobs: {' '.join(jobs)}"
            ) from error
        self._batches.append(_Batch(folder, submission))
        return jobs

    def states(self) -> dict[str, str]:
        """Return the states of the jobs that are not over; id -> state."""
        states: dict[str, str] = {}
        for batch in self._batches:
            states |= self._scheduler.states(batch.submission.jobs, batch.folder)
        return states

    def wait(self, watcher: Watcher) -> dict[str, str]:
        """Wait until no job is left; those that would find nothing to do are taken out of the queue.

        Returns:
            Run id -> reason, of the runs that are not done.
        """
        untold = [run for run in self._runs if not _is_finished(run)]
        while True:
            states = self.states()
            watcher.states(states)
            untold = [run for run in untold if not self._tell(run, watcher)]
            if not states:
                return self._end()
            if QUEUED in states.values() and not any(map(self._is_open, self._runs)):
                self._scheduler.cancel([job for job, state in states.items() if state == QUEUED])
            time.sleep(self._scheduler.poll_seconds)

    def _earlier(self) -> list[_Batch]:
        run_ids = {run.config.run_id for run in self._runs}
        batches = []
        for record in sorted(self._folder.glob(f"*/{_RECORD}")):
            try:
                submission = Submission.read(record)
            except UserError as error:
                raise UserError(f"{error}; delete its folder when its jobs are over") from error
            if submission.launcher != self._scheduler.launcher:
                continue
            if not self._scheduler.states(submission.jobs, record.parent):
                self._remove(record.parent)
            elif run_ids & set(submission.runs):
                batches.append(_Batch(record.parent, submission))
        return batches

    def _new_folder(self) -> Path:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in count(1):
                folder = self._folder / f"{self._name}-{number}"
                if not folder.exists():
                    folder.mkdir()
                    break
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written ({error.strerror})") from error
        return folder

    def _remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

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


def _is_finished(run: PlannedRun) -> bool:
    """Look for the result of a run by listing its folder: a shared file system then looks itself."""
    try:
        return run.folder.result in run.folder.path.iterdir()
    except OSError:
        return False
