"""Show the progress of a study: a line for every lane, and one for all of it with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBar

from repro.cli.console import err, number
from repro.cli.progress import Smoothed, StopRequest
from repro.run.until import TimeToLoss
from repro.study.board import Work
from repro.study.plan import PlannedRun
from repro.study.seat import Outcome
from repro.training.state import Progress

_LINE_SECONDS = 10
"""How often a line is printed where there is no terminal."""
_TO_TARGET = 0.3
"""Share of a run's budget that the way on to a target takes, while it is not known."""
_ENOUGH = 0.1
"""Share of all work after which the time left is told."""


def title(run: PlannedRun) -> str:
    """Name a run in one line."""
    return f"{run.config.task} {run.variant} seed {run.config.seed}"


class Remaining:
    """Estimate the time left, from how much of all work was done how fast.

    A run is as much work as its estimate says, and a share of that if it may have to go on to a target.
    """

    def __init__(
        self,
        missing: Sequence[PlannedRun],
        cost: Callable[[PlannedRun], float],
        has_target: Callable[[PlannedRun], bool],
    ) -> None:
        self._budget = {run.config.run_id: cost(run) for run in missing}
        self._whole = {
            run.config.run_id: cost(run) * (1 + _TO_TARGET if has_target(run) else 1) for run in missing
        }
        self._left = dict(self._whole)
        self._start = time.monotonic()

    def advance(self, run: PlannedRun, share: float) -> None:
        """Take in that a run has done this share of its budget."""
        run_id = run.config.run_id
        if run_id in self._left:
            left = self._whole[run_id] - share * self._budget[run_id]
            self._left[run_id] = min(self._left[run_id], left)

    def finish(self, run: PlannedRun) -> None:
        """Take in that nothing of a run is left."""
        self._left[run.config.run_id] = 0.0

    @property
    def share_done(self) -> float:
        """Share of all work that is done."""
        whole = sum(self._whole.values())
        return 1 - sum(self._left.values()) / whole if whole else 1.0

    @property
    def seconds(self) -> float | None:
        """Seconds left; None while too little is done to tell."""
        done = self.share_done
        if done < _ENOUGH:
            return None
        return (time.monotonic() - self._start) * (1 - done) / done


class StudyDisplay:
    """A line for every lane and one for all on a terminal; elsewhere one of each kind every 10 seconds.

    It is told what the lanes do (`study.execute.Watcher`), and prints what every run came to.
    """

    def __init__(self, lanes: int, runs: int, remaining: Remaining, stop: StopRequest) -> None:
        self._runs = runs
        self._finished = 0
        self._started = 0
        self._remaining = remaining
        self._stop = stop
        self._last_line = time.monotonic()
        self._smoothed = Smoothed()
        self._bar = ProgressBar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[state]}", markup=False),
            console=err,
            disable=not err.is_terminal,
            transient=True,
        )
        self._all = self._bar.add_task("all runs", total=1.0, state=f"0/{runs}")
        self._lanes: list[TaskID] = [
            self._bar.add_task("", total=1.0, state="", visible=False) for _ in range(lanes)
        ]
        self._lane_of: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def started(self, run: PlannedRun, until: float | None) -> None:
        """Announce a run whose budget begins."""
        self._stop.training = True
        if until is None:
            self._started += 1
            if not err.is_terminal:
                err.print(f"[{self._started}/{self._runs}] {title(run)}", markup=False)

    def assigned(self, lane: int, run: PlannedRun | None, work: Work) -> None:
        """Show who works on a lane."""
        if run is None:
            self._bar.update(self._lanes[lane], visible=False)
            return
        if work == Work.TRAINING:
            self._lane_of[run.config.run_id] = lane
            self._bar.update(self._lanes[lane], visible=True, description=title(run))
        else:
            self._bar.update(self._lanes[lane], visible=True, description=title(run), state="no training")

    def stepped(self, run: PlannedRun, progress: Progress) -> None:
        """Show a step of a run."""
        run_id = run.config.run_id
        self._remaining.advance(run, progress.done / progress.total_steps)
        state = f"{progress.done}/{progress.total_steps} {self._smoothed.state(run_id, progress)}"
        if err.is_terminal:
            lane = self._lanes[self._lane_of[run_id]]
            self._bar.update(lane, total=progress.total_steps, completed=progress.done, state=state)
            self._show_all()
        elif time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            err.print(f"{title(run)} step {state}", markup=False)
            err.print(f"all runs {self._state()}", markup=False)

    def ended(self, run: PlannedRun, outcome: Outcome) -> None:
        """Print what a run came to."""
        self._smoothed.forget(run.config.run_id)
        if isinstance(outcome, TimeToLoss):
            self._remaining.finish(run)
            return
        if isinstance(outcome, str):
            self._remaining.finish(run)
            what = f"failed: {outcome}"
        else:
            self._remaining.advance(run, 1.0)
            metric, seconds = outcome.metric, outcome.train_seconds
            what = f"{metric.name} {number(metric.value)}, {seconds:.1f} s of training"
        self._finished += 1
        self._show_all()
        err.print(f"{title(run)}: {what}", markup=False)

    def _show_all(self) -> None:
        self._bar.update(self._all, completed=self._remaining.share_done, state=self._state())

    def _state(self) -> str:
        """Say how many runs are done, and how long the others will take."""
        seconds = self._remaining.seconds
        left = "" if seconds is None else f", about {_duration(seconds)} left"
        return f"{self._finished}/{self._runs}, {self._remaining.share_done:.0%}{left}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
