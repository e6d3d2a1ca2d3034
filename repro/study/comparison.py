"""The runs of a task and seed, which are compared and train in turns: one command at a time does them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repro.errors import UserError
from repro.run.claim import Claim
from repro.study.plan import PlannedRun
from repro.study.seat import Job


@dataclass(eq=False)
class Comparison:
    """How far a command is with the runs of a task and seed."""

    runs: list[tuple[int, PlannedRun]]
    """With their numbers."""
    claim: Claim
    waiting: list[Job]
    """To be opened."""
    open: list[Job] = field(default_factory=list)
    has_targets: bool = False
    """Whether budgets are done, and what waits goes on to targets."""
    is_done: bool = False

    @property
    def is_done_by_another(self) -> bool:
        """Whether a command that is alive was doing the very same runs when it was last looked at."""
        return not self.claim.is_held and self.claim.is_done_by_another

    def take(self) -> bool:
        """Keep other commands off it; return whether none has it.

        Raises:
            UserError: the folder of the results cannot be written.
        """
        try:
            return self.claim.acquire()
        except OSError as error:
            raise UserError(
                f"--out {self.runs[0][1].paths.results}: cannot be written ({error.strerror});"
                " give another folder"
            ) from error


def comparisons_of(runs: Sequence[PlannedRun]) -> list[Comparison]:
    """Sort runs by task and seed; those that are not finished wait."""
    by_place: dict[tuple[str, int], list[tuple[int, PlannedRun]]] = {}
    for number, run in enumerate(runs):
        by_place.setdefault((run.config.task, run.config.seed), []).append((number, run))
    return [
        Comparison(
            runs=members,
            claim=Claim(_lock_file(members[0][1]), _digest(run for _, run in members)),
            waiting=[job_of(number, run) for number, run in members if not run.finished],
        )
        for members in by_place.values()
    ]


def job_of(number: int, run: PlannedRun, until: float | None = None) -> Job:
    """Return what the process of a run is given.

    Args:
        number: of the run in the study.
        until: the loss that it goes on to; None does its budget.
    """
    return Job(number=number, config=run.config, paths=run.paths, until=until)


def _lock_file(run: PlannedRun) -> Path:
    """Return the file by which a command claims the runs of a task and seed."""
    return run.folder.path.parent / f".{run.config.task}-s{run.config.seed}.lock"


def _digest(runs: Iterable[PlannedRun]) -> str:
    """Stand for the runs: others may do more or fewer of the same task and seed."""
    return hashlib.sha256(" ".join(sorted(run.config.run_id for run in runs)).encode()).hexdigest()[:16]
