"""Interleave the steps of compared runs, so that other load on the machine slows all of them alike.

Every run has a process of its own, which is idle unless it is its turn: at any moment one of them works.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Literal, Protocol, TypeVar

from repro import plugins
from repro.config import RunConfig
from repro.errors import Interrupted, named_line
from repro.results.files import RunPaths
from repro.results.run import RunResult
from repro.run.execute import execute
from repro.training.state import Progress

Outcome = RunResult | str
"""The result of a run, or why it failed."""
Message = (
    tuple[Literal["step"], Progress]
    | tuple[Literal["evaluating"], None]
    | tuple[Literal["ended"], Outcome]
    | tuple[Literal["interrupted"], str]
)
"""What the process of a run sends: a step or a batch of an evaluation done, how it ended, or stopped."""
_CONTEXT = multiprocessing.get_context("forkserver")
# What a run imports, for seconds, is imported once for all of them.
_CONTEXT.set_forkserver_preload(
    [
        "repro.run.execute",
        *(
            plugins.module_name(family, name)
            for family in ("backbones", "metrics")
            for name in plugins.names(family)
        ),
        "scipy.stats",
    ]
)


class Run(Protocol):
    """A run to be done: its configuration, and where its inputs and results lie."""

    @property
    def config(self) -> RunConfig:
        """What is run."""

    @property
    def paths(self) -> RunPaths:
        """Where inputs and results lie."""


AnyRun = TypeVar("AnyRun", bound=Run)


def interleave(
    runs: Sequence[AnyRun],
    steps: int,
    *,
    report: Callable[[AnyRun, Progress], None],
    ended: Callable[[AnyRun, Outcome], None],
    should_stop: Callable[[], bool],
) -> None:
    """Do runs side by side: `steps` optimizer steps of one, then of the next, until all have ended.

    Args:
        report: called with the run after each of its steps.
        ended: told the run and its result, or why it failed.
        should_stop: asked after every step.

    Raises:
        Interrupted: `should_stop` said so; every run saved a checkpoint.
    """
    ids = [run.config.run_id for run in runs]
    active = [
        (run, _Worker(run.config, run.paths, [other for other in ids if other != run.config.run_id]))
        for run in runs
    ]
    interrupted: Interrupted | None = None
    try:
        while active:
            for pair in list(active):
                run, worker = pair
                outcome = worker.advance(steps, partial(report, run), should_stop)
                if outcome is None:
                    continue
                active.remove(pair)
                worker.end()
                if isinstance(outcome, Interrupted):
                    interrupted = outcome
                else:
                    ended(run, outcome)
    finally:
        for _, worker in active:
            worker.end()
    if interrupted is not None:
        raise interrupted


class _Worker:
    """The process of a run, seen from outside. Before every step it waits to be told whether to stop."""

    def __init__(self, config: RunConfig, paths: RunPaths, interleaved_with: list[str]) -> None:
        self._channel, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work, args=(config, paths, interleaved_with, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    def advance(
        self, steps: int, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Outcome | Interrupted | None:
        """Let the run do a number of steps; return how it ended, or None if it has not."""
        done = 0
        while done < steps:
            try:
                self._channel.send(should_stop())
                message: Message = self._channel.recv()
            except (EOFError, OSError):  # the process has ended
                self._process.join()
                return _cause(self._process.exitcode)
            if message[0] == "interrupted":
                return Interrupted(message[1])
            if message[0] == "ended":
                return message[1]
            if message[0] == "step":
                done += 1
                report(message[1])
        return None

    def end(self) -> None:
        """Stop the process, if it runs."""
        self._channel.close()
        self._process.kill()
        self._process.join()


def _cause(status: int | None) -> str:
    """Say why a process ended without a message."""
    if status == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out; try a smaller --at-once"
    return f"its process ended (exit status {status})"


class _Parent:
    """The other end of the channel: every message sent is answered by whether to stop."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._answer_due = True
        """The first answer is sent unasked."""

    def report(self, progress: Progress) -> None:
        """Tell of a step."""
        self._channel.send(("step", progress))
        self._answer_due = True

    def should_stop(self) -> bool:
        """Wait for the answer; outside of steps ask for one."""
        if not self._answer_due:
            self._channel.send(("evaluating", None))
        self._answer_due = False
        return bool(self._channel.recv())


def _work(config: RunConfig, paths: RunPaths, interleaved_with: list[str], channel: Connection) -> None:
    """Do the run in its own process. Ctrl-C and SIGTERM, which a whole group gets, reach it as messages."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = _Parent(channel)
    try:
        if parent.should_stop():
            channel.send(("interrupted", "stopped before the first step"))
            return
        result = execute(
            config,
            paths,
            interleaved_with=interleaved_with,
            report=parent.report,
            should_stop=parent.should_stop,
        )
        channel.send(("ended", result))
    except Interrupted as error:
        channel.send(("interrupted", str(error)))
    except Exception as error:  # of this run alone: bad data, a loss that is not finite, no memory
        channel.send(("ended", named_line(error)))
