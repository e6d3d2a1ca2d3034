"""Who is told how far a study is, and studies that are done with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from repro.study.board import Work
from repro.study.execute import Memory, execute
from repro.study.lanes import Lanes
from repro.study.plan import PlannedRun
from repro.study.seat import Outcome
from repro.training.state import Progress

ROOM = Memory(of_run=lambda run: 1.0, available=None)
"""Memory for all."""


@dataclass
class Told:
    """What is told of the runs, in its order: variant with step, with outcome, or with its lane."""

    stop_at: int = 10**6
    """Steps after which the study is asked to stop."""
    steps: list[tuple[str, int]] = field(default_factory=list)
    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    starts: list[tuple[str, float | None]] = field(default_factory=list)
    work: list[tuple[int, str | None, Work]] = field(default_factory=list)
    settled_runs: list[str] = field(default_factory=list)

    def started(self, run: PlannedRun, until: float | None) -> None:
        self.starts.append((run.variant, until))

    def assigned(self, lane: int, run: PlannedRun | None, work: Work) -> None:
        self.work.append((lane, run.variant if run else None, work))

    def stepped(self, run: PlannedRun, progress: Progress) -> None:
        self.steps.append((run.variant, progress.record.step))

    def settled(self, run: PlannedRun) -> None:
        self.settled_runs.append(f"{run.variant} {run.config.seed}")

    def ended(self, run: PlannedRun, outcome: Outcome) -> None:
        self.outcomes.append((run.variant, outcome))

    def should_stop(self) -> bool:
        return len(self.steps) >= self.stop_at


def do(
    runs: Sequence[PlannedRun],
    told: Told | None = None,
    *,
    study: str = "gates",
    lanes: int = 1,
    turns: int = 2,
    memory: Memory = ROOM,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, str]:
    """Do runs as those of a study; `gates` has no baseline, so no run goes on to a target."""
    told = told or Told()
    shares = Lanes(count=lanes, threads=1, turns=turns)
    return execute({study: runs}, shares, memory, told, should_stop or told.should_stop)


def never() -> bool:
    return False


def at(number: int) -> Callable[[], bool]:
    """Stop when asked for the n-th time."""
    asked = count(1)
    return lambda: next(asked) >= number
