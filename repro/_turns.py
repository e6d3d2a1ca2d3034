"""Runs that are compared take turns, so that what else the machine does slows all of them alike.

Every run has a process of its own, which is idle unless it is its turn: at any moment one of them works.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from repro import plugins
from repro.config import RunConfig
from repro.errors import Interrupted, named_line
from repro.records import Places
from repro.run import execute

Record = dict[str, Any]
Outcome = Record | str
"""The result of a run, or why it failed."""
_CONTEXT = multiprocessing.get_context("forkserver")
# What a run imports, for seconds, is imported once for all of them.
_CONTEXT.set_forkserver_preload(
    [
        "repro.run",
        *(f"repro.{family}.{name}" for family in ("backbones", "metrics") for name in plugins.names(family)),
        "scipy.stats",
    ]
)


class Run(Protocol):
    """What a run is known by here."""

    @property
    def config(self) -> RunConfig:
        """What to do."""

    @property
    def places(self) -> Places:
        """Where."""


AnyRun = TypeVar("AnyRun", bound=Run)


def take_turns(
    runs: Sequence[AnyRun],
    steps: int,
    *,
    report: Callable[[AnyRun, Record], None],
    ended: Callable[[AnyRun, Outcome], None],
    should_stop: Callable[[], bool],
) -> None:
    """Do runs side by side, each so many steps and then the next.

    Args:
        report: called with the run and the record of each of its steps.
        ended: told the run and its result, or why it failed.
        should_stop: asked after every step.

    Raises:
        Interrupted: `should_stop` said so; every run saved a checkpoint.
    """
    ids = [run.config.run_id for run in runs]
    waiting = [
        (run, _Worker(run.config, run.places, [other for other in ids if other != run.config.run_id]))
        for run in runs
    ]
    interrupted: Interrupted | None = None
    try:
        while waiting:
            for pair in list(waiting):
                run, worker = pair
                outcome = worker.go_on(steps, partial(report, run), should_stop)
                if outcome is None:
                    continue
                waiting.remove(pair)
                worker.end()
                if isinstance(outcome, Interrupted):
                    interrupted = outcome
                else:
                    ended(run, outcome)
    finally:
        for _, worker in waiting:
            worker.end()
    if interrupted is not None:
        raise interrupted


class _Worker:
    """The process of a run, seen from outside. It waits for a word before every step: whether to stop."""

    def __init__(self, config: RunConfig, places: Places, beside: list[str]) -> None:
        self._channel, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(config, places, beside, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def go_on(
        self, steps: int, report: Callable[[Record], None], should_stop: Callable[[], bool]
    ) -> Outcome | Interrupted | None:
        """Let the run do so many steps; how it ended, or None if it has not."""
        for _ in range(steps):
            try:
                self._channel.send(should_stop())
                kind, value = self._channel.recv()
            except (EOFError, BrokenPipeError):
                self._process.join()
                return _cause(self._process.exitcode)
            if kind == "interrupted":
                return Interrupted(value)
            if kind == "ended":
                outcome: Outcome = value
                return outcome
            report(value)
        return None

    def end(self) -> None:
        """Stop the process, if it runs."""
        self._channel.close()
        self._process.terminate()
        self._process.join()


def _cause(status: int | None) -> str:
    """Why a process that said nothing is gone."""
    if status == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out; try a smaller --at-once"
    return f"its process ended (exit status {status})"


def _work(config: RunConfig, places: Places, beside: list[str], channel: Connection) -> None:
    """The run, in its own process. Ctrl-C reaches it as a word of the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if channel.recv():
            channel.send(("interrupted", "stopped before the first step"))
            return
        result = execute(
            config,
            places,
            beside=beside,
            report=lambda record: channel.send(("step", record)),
            should_stop=channel.recv,
        )
        channel.send(("ended", result))
    except Interrupted as error:
        channel.send(("interrupted", str(error)))
    except Exception as error:  # of this run alone: bad data, a loss that is not finite, no memory
        channel.send(("ended", named_line(error)))
