"""What is going on in a study at this moment, in memory that all its processes see."""

from collections.abc import Sequence
from enum import IntEnum
from multiprocessing.context import BaseContext


class Work(IntEnum):
    """What a lane does."""

    NOTHING = 0
    TRAINING = 1
    OTHER = 2
    """Loading, evaluating, saving."""


class Board:
    """Who works on which lane, and how many steps every run has done.

    Only the parent writes what the lanes do, and every run its own count, so nobody waits for a lock.
    """

    def __init__(self, context: BaseContext, lanes: int, run_ids: Sequence[str]) -> None:
        self.lanes = lanes
        self._run_ids = tuple(run_ids)
        self._work = context.RawArray("q", lanes)
        self._run = context.RawArray("q", lanes)
        self._changes = context.RawArray("q", 1)
        self._steps = context.RawArray("q", len(self._run_ids))

    def assign(self, lane: int, work: Work, run: int) -> None:
        """Write what a lane does from now on, and for which run (its number)."""
        self._run[lane] = run
        if self._work[lane] != work:
            self._changes[0] += 1
            self._work[lane] = work

    def mark(self) -> int:
        """Return a value that changes whenever a lane begins another kind of work."""
        return int(self._changes[0])

    def is_fair_since(self, mark: int) -> bool:
        """Tell whether all lanes have been training since a mark."""
        return self.mark() == mark and all(work == Work.TRAINING for work in self._work)

    def run_id(self, run: int) -> str:
        """Return the id of a run."""
        return self._run_ids[run]

    def beside(self, lane: int) -> list[str]:
        """Return the ids of the runs on the other lanes."""
        return [self._run_ids[run] for other, run in enumerate(self._run) if other != lane]

    def add_step(self, run: int) -> None:
        """Count a step of a run."""
        self._steps[run] += 1

    def steps(self) -> list[int]:
        """Return how many steps every run has done."""
        return list(self._steps)

    def trained_since(self, steps: Sequence[int]) -> list[str]:
        """Return the ids of the runs that have done steps since the counts were these."""
        pairs = zip(self._run_ids, steps, self._steps, strict=True)
        return [run_id for run_id, before, now in pairs if now > before]
