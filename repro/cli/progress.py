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

    Before the first step there is nothing to save, and a second Ctrl-C means it: both interrupt. `torchrun`
    answers a Ctrl-C, which its processes have got, too, with SIGTERM to all of them: that is no second one.
    """

    def __init__(self) -> None:
        self.training = False
        self._asked: set[int] = set()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def __call__(self) -> bool:
        """Tell whether a stop was asked for."""
        return bool(self._asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._asked or not self.training:
            raise KeyboardInterrupt
        if not self._asked:
            err.print("stopping after this step; press Ctrl-C again to stop at once")
        self._asked.add(number)


class Smoothed:
    """Loss and tokens per second, smoothed over about 20 steps."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, float]] = {}

    def state(self, name: str, progress: Progress) -> str:
        """Take in a step of a run, and say in a few words where it stands."""
        record = progress.record
        current = record.loss, record.tokens / record.seconds
        before = self._values.get(name, current)
        loss, speed = (0.95 * old + 0.05 * new for old, new in zip(before, current, strict=True))
        self._values[name] = loss, speed
        two = "" if record.share_multi_expert is None else f" two {record.share_multi_expert:.0%}"
        return f"loss {loss:.3f}{two} {speed / 1000:.1f}k tok/s"

    def forget(self, name: str) -> None:
        """Begin anew with a run."""
        self._values.pop(name, None)


class TrainingDisplay:
    """Show a progress bar of a run on a terminal; elsewhere print a line every 10 seconds and at the end."""

    def __init__(self) -> None:
        self._last_line = time.monotonic()
        self._smoothed = Smoothed()
        self._bar = ProgressBar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            TextColumn("{task.completed}/{task.total} {task.fields[state]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=err,
            disable=not err.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, title: str, progress: Progress) -> None:
        """Show a step."""
        state = self._smoothed.state(title, progress)
        if err.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task(title, total=progress.total_steps, state=state)
            self._bar.update(self._task, completed=progress.done, state=state)
        elif progress.done == progress.total_steps or time.monotonic() - self._last_line > 10:
            self._last_line = time.monotonic()
            err.print(f"{title} step {progress.done}/{progress.total_steps} {state}")
