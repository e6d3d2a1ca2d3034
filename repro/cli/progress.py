"""Show the progress of training, and turn Ctrl-C into a request to stop."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from repro.cli.console import err

if TYPE_CHECKING:
    from repro.training.state import Progress


class StopRequest:
    """Turn the first Ctrl-C (or SIGTERM) into a request to stop after the current step.

    Before the first step there is nothing to save, and a second Ctrl-C means it: both interrupt.
    """

    def __init__(self) -> None:
        self.training = False
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def __call__(self) -> bool:
        """Tell whether a stop was asked for."""
        return self._asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self.training:
            raise KeyboardInterrupt
        self._asked = True
        err.print("stopping after this step; press Ctrl-C again to stop at once")


class TrainingDisplay:
    """Show a progress bar on a terminal; elsewhere print a line every 10 seconds and at the end.

    With several runs, a second bar counts them.
    """

    def __init__(self, runs: int = 1) -> None:
        self._runs = runs
        self._finished = 0
        self._last_line = time.monotonic()
        self._smooth: dict[str, tuple[float, float]] = {}
        """Title -> smoothed loss and tokens per second."""
        self._bar = ProgressBar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            TextColumn("{task.completed}/{task.total} {task.fields[state]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=err,
            disable=not err.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._all: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        if self._runs > 1:
            self._all = self._bar.add_task("all runs", total=self._runs, state="")
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def begin(self, title: str, number: int = 0) -> None:
        """Announce a run; `number` counts from 0."""
        if self._all is not None and not err.is_terminal:
            err.print(f"[{number + 1}/{self._runs}] {title}", markup=False)

    def show(self, title: str, progress: Progress) -> None:
        """Show a step of a run; loss and speed are smoothed over about 20 steps."""
        record, total_steps = progress.record, progress.total_steps
        current = record.loss, record.tokens / record.seconds
        smooth = self._smooth.get(title, current)
        loss, speed = (0.95 * before + 0.05 * now for before, now in zip(smooth, current, strict=True))
        self._smooth[title] = loss, speed
        two = record.share_multi_expert
        state = f"loss {loss:.3f}"
        state += f" two {two:.0%}" if two is not None else ""
        state += f" {speed / 1000:.1f}k tok/s"
        if err.is_terminal:
            if title not in self._tasks:
                self._tasks[title] = self._bar.add_task(title, total=total_steps, state=state)
            self._bar.update(self._tasks[title], completed=progress.done, state=state)
        elif progress.done == total_steps or time.monotonic() - self._last_line > 10:
            self._last_line = time.monotonic()
            err.print(f"{title} step {progress.done}/{total_steps} {state}")

    def end(self, title: str) -> None:
        """Remove and count a run that has ended."""
        self._finished += 1
        self.remove(title)
        if self._all is not None:
            self._bar.update(self._all, completed=self._finished)

    def remove(self, title: str) -> None:
        """Remove the bar of a run."""
        self._smooth.pop(title, None)
        if title in self._tasks:
            self._bar.remove_task(self._tasks.pop(title))
