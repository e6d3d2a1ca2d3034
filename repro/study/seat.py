"""The process of a run of a study: it works when it is its turn, on the lane that it is told."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import torch

from repro.config import RunConfig
from repro.errors import Interrupted, InUse, named_line
from repro.machine import pin
from repro.results.files import RunPaths
from repro.results.run import RunResult
from repro.run.execute import execute
from repro.run.until import TimeToLoss, execute_until
from repro.study.board import Board, Work
from repro.training.lane import Lane
from repro.training.state import Progress

Outcome = RunResult | TimeToLoss | str
"""What a run came to, or why it failed."""
Message = (
    tuple[Literal["step"], Progress]
    | tuple[Literal["waits"], Work]
    | tuple[Literal["ended"], Outcome]
    | tuple[Literal["interrupted"], str]
    | tuple[Literal["in use"], None]
)
"""What the process of a run sends: a step done, what it would do next, or how it ended."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The permission to work on a lane."""

    lane: int
    cpus: Sequence[int]
    steps: int
    """Training steps after which the turn is over; 0: when the run has something else to do."""


Order = Turn | Literal["stop"]
"""What the process of a run is told."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the process of a run does: its budget, or the way on to a loss."""

    number: int
    """Of the run in the study."""
    config: RunConfig
    paths: RunPaths
    until: float | None = None
    """Loss on the dev split that its trunk goes on to; None does the budget."""


class Seat(Lane):
    """A run's share of the machine, seen from inside its process."""

    def __init__(self, channel: Connection, board: Board, run: int) -> None:
        self.count = board.lanes
        self._channel = channel
        self._board = board
        self._run = run
        self._steps_before = board.steps()
        self._turn: Turn | None = None
        self._cpus: Sequence[int] = ()
        self._work = Work.NOTHING
        self._steps_left = 0
        self._mark = 0
        self._stop = False

    def train(self) -> None:
        """Wait for a turn if there is none, or what came before was no training."""
        if self._work != Work.TRAINING or self._steps_left == 0:
            self._wait(Work.TRAINING)
        self._mark = self._board.mark()

    def rest(self) -> None:
        """Wait for a lane if what came before was training."""
        if self._work != Work.OTHER:
            self._wait(Work.OTHER)

    def is_fair(self) -> bool:
        """Tell whether all lanes were training from the beginning of the step to now."""
        return not self._stop and self._board.is_fair_since(self._mark)

    def neighbours(self) -> Sequence[str]:
        """Return the ids of the runs on the other lanes."""
        return self._board.beside(self._turn.lane) if self._turn else ()

    def partners(self) -> Sequence[str]:
        """Return the ids of the other runs that have trained since this process began."""
        own = self._board.run_id(self._run)
        return [run_id for run_id in self._board.trained_since(self._steps_before) if run_id != own]

    def report(self, progress: Progress) -> None:
        """Tell of a step."""
        self._board.add_step(self._run)
        self._steps_left -= 1
        self.send(("step", progress))

    def should_stop(self) -> bool:
        """Tell whether the order to stop has come."""
        try:
            while not self._stop and self._channel.poll():
                self._receive()
        except (EOFError, OSError):
            self._stop = True
        return self._stop

    def send(self, message: Message) -> None:
        """Tell the parent; if it is gone, save and end."""
        try:
            self._channel.send(message)
        except OSError:
            self._stop = True

    def _wait(self, work: Work) -> None:
        """Give the lane back, and wait for the next turn or for the order to stop."""
        self._turn, self._work = None, work
        if not self._stop:
            self.send(("waits", work))
        while self._turn is None and not self._stop:
            try:
                self._receive()
            except (EOFError, OSError):  # the parent is gone
                self._stop = True

    def _receive(self) -> None:
        order: Order = self._channel.recv()
        if order == "stop":
            self._stop = True
            return
        if order.cpus != self._cpus:
            pin(order.cpus)
        self._turn, self._cpus = order, order.cpus
        # Without a limit the count goes below 0 and never comes to it.
        self._steps_left = order.steps or -1


def work(job: Job, board: Board, threads: int, gpu: str | None, channel: Connection) -> None:
    """Do a run in its own process. Signals that a whole group gets reach it as messages.

    Args:
        gpu: the only one that it sees; None on the CPU.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    seat = Seat(channel, board, job.number)
    try:
        seat.rest()
        if seat.should_stop():
            seat.send(("interrupted", "stopped before the first step"))
            return
        seat.send(("ended", _do(job, seat)))
    except InUse:
        seat.send(("in use", None))
    except Interrupted as error:
        seat.send(("interrupted", str(error)))
    except Exception as error:  # of this run alone: bad data, a loss that is not finite, no memory
        seat.send(("ended", named_line(error)))


def _do(job: Job, seat: Seat) -> RunResult | TimeToLoss:
    if job.until is None:
        return execute(job.config, job.paths, report=seat.report, should_stop=seat.should_stop, lane=seat)
    return execute_until(
        job.config, job.paths, job.until, report=seat.report, should_stop=seat.should_stop, lane=seat
    )
