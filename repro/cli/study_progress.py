"""Show the progress of a study: a line for every lane, and one for all of it with the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Self

from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBar

from repro.cli.console import err, number
from repro.cli.progress import Smoothed, StopRequest
from repro.results.run import RunResult
from repro.run.until import TimeToLoss
from repro.study.board import Work
from repro.study.plan import PlannedRun
from repro.study.seat import Outcome
from repro.study.time_left import RunSoFar, Workload, workload
from repro.training.state import Progress

_LINE_SECONDS = 10
"""How often a line is printed where there is no terminal."""
_ENOUGH = 0.1
"""Share of all work after which the time left is told."""


def title(run: PlannedRun) -> str:
    """Name a run in one line."""
    return f"{run.config.task} {run.variant} seed {run.config.seed}"


def came_to(outcome: Outcome) -> str:
    """Say what a run came to."""
    if isinstance(outcome, str):
        return f"failed: {outcome}"
    if isinstance(outcome, TimeToLoss):
        return f"loss {number(outcome.loss)} {'not ' if outcome.steps is None else ''}reached"
    metric, seconds = outcome.metric, outcome.train_seconds
    return f"{metric.name} {number(metric.value)}, {seconds:.1f} s of training"


class TimeLeft:
    """The time that a study still takes, as its runs go on."""

    def __init__(self, runs: Mapping[str, RunSoFar], lanes: int) -> None:
        """Begin to measure.

        Args:
            runs: run id -> what is known of it; they are changed.
            lanes: runs that work at the same time; 0: not known.
        """
        self._runs = runs
        self._lanes = lanes
        self._start = time.monotonic()

    def goes_on(self, run: PlannedRun) -> None:
        """Take in that the budget of a run is done, and its target not reached."""
        self._runs[run.config.run_id].goes_on = True

    def stepped(self, run: PlannedRun, progress: Progress) -> None:
        """Take in a training step."""
        so_far, seconds = self._runs[run.config.run_id], progress.record.seconds
        if so_far.goes_on:
            so_far.way += 1 / (so_far.steps or progress.total_steps)
            so_far.way_seconds_here += seconds
            return
        so_far.steps = progress.total_steps
        so_far.share = progress.done / progress.total_steps
        so_far.share_here += 1 / progress.total_steps
        so_far.seconds_here += seconds

    def ended(self, run: PlannedRun, outcome: Outcome) -> None:
        """Take in what a run came to."""
        so_far = self._runs[run.config.run_id]
        if isinstance(outcome, RunResult):
            so_far.share = 1.0
            if not so_far.share_here:  # on another machine
                so_far.share_here, so_far.seconds_here = 1.0, outcome.train_seconds
        so_far.is_over = not (isinstance(outcome, RunResult) and so_far.may_go_on)

    def settled(self, run: PlannedRun) -> None:
        """Take in that nothing of a run is left."""
        self._runs[run.config.run_id].is_over = True

    @property
    def share_done(self) -> float:
        """Share of all work that is done."""
        return self._workload.share_done

    @property
    def seconds(self) -> float | None:
        """Seconds left; None while too little is done to tell."""
        work = self._workload
        if work.share_done < _ENOUGH:
            return None
        return work.seconds_left(time.monotonic() - self._start, self._lanes)

    @property
    def _workload(self) -> Workload:
        return workload([*self._runs.values()])


class StudyDisplay:
    """A line for every lane and one for all on a terminal; elsewhere one of each kind every 10 seconds.

    It is told what the lanes do (`study.execute.Watcher`), and prints what every run came to.
    """

    def __init__(self, lanes: int, runs: int, time_left: TimeLeft, stop: StopRequest) -> None:
        self._runs = runs
        self._finished = 0
        self._started = 0
        self._time_left = time_left
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
        if until is not None:
            self._time_left.goes_on(run)
        else:
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
        self._time_left.stepped(run, progress)
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
        self._time_left.ended(run, outcome)
        if isinstance(outcome, TimeToLoss):
            return
        self._finished += 1
        self._show_all()
        err.print(f"{title(run)}: {came_to(outcome)}", markup=False)

    def settled(self, run: PlannedRun) -> None:
        """Take in that nothing more is done for a run."""
        self._time_left.settled(run)

    def _show_all(self) -> None:
        self._bar.update(self._all, completed=self._time_left.share_done, state=self._state())

    def _state(self) -> str:
        """Say how many runs are done, and how long the others will take."""
        seconds = self._time_left.seconds
        left = "" if seconds is None else f", about {_duration(seconds)} left"
        return f"{self._finished}/{self._runs}, {self._time_left.share_done:.0%}{left}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
