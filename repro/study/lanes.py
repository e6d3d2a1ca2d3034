"""Do the runs of a study on lanes: on each of them one works at any moment, on CPUs of its own.

Every open run has a process. On the lanes they take turns: a few training steps of one, then of another, so
that a slow core or a neighbour slows all that are compared alike. What is no training (loading, evaluations,
checkpoints) is put off until nobody is left that would train, and then done by all lanes together: only while
all lanes train are times compared.
"""

import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

import torch

from repro import plugins
from repro.errors import Interrupted
from repro.machine import cores, gpus, shares_of_cpus
from repro.signals import started_deaf_to
from repro.study.board import Board, Work
from repro.study.seat import Job, Message, Order, Outcome, Turn, work
from repro.training.state import Progress

_CONTEXT = multiprocessing.get_context("forkserver")
# What a run imports, for seconds, is imported once for all of them.
_CONTEXT.set_forkserver_preload(
    [
        "repro.study.seat",
        *(
            plugins.module_name(family, name)
            for family in ("backbones", "metrics")
            for name in plugins.names(family)
        ),
        "scipy.optimize",
    ]
)
_LISTEN_SECONDS = 0.2
"""After so long without a message it is asked whether to stop."""
_POLL_SECONDS = 1.0
"""How often, at least, it is looked whether more can be begun: another command may have it, or be done."""


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """How many runs work at the same time, and how they take turns."""

    count: int
    threads: int
    """Of each run."""
    turns: int
    """Training steps after which another run has its turn; 0: a run keeps its lane while it trains."""


def default_lanes(count: int | None, threads: int | None, turns: int) -> Lanes:
    """Fill in what is not given: all cores for each run, as many lanes as there are cores, or GPUs."""
    own_threads = threads or cores()
    if count is None:
        count = torch.cuda.device_count() if torch.cuda.is_available() else max(1, cores() // own_threads)
    return Lanes(count=count, threads=own_threads, turns=turns)


def _start_server() -> None:
    """Start the process that forks those of the runs, deaf to what is meant for the parent alone.

    Ctrl-C would end it in a trace; a cluster sends its signals, which would kill it, to all processes of a
    job.
    """
    with started_deaf_to(signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        forkserver.ensure_running()


class Supply(Protocol):
    """What is to be done."""

    def take(self) -> Sequence[Job]:
        """Return the jobs to be opened now, which are compared with each other; none if they have to wait."""

    def is_empty(self) -> bool:
        """Return whether nothing is left, also of what has to wait."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Tell what a job came to."""

    def put_back(self, job: Job) -> None:
        """Return a job that another command is doing at the moment."""


class Watcher(Protocol):
    """Who is told what happens."""

    def assigned(self, lane: int, job: Job | None, work: Work) -> None:
        """Tell what a lane does from now on; no job: nothing."""

    def stepped(self, job: Job, progress: Progress) -> None:
        """Tell of a training step."""


@dataclass(eq=False)
class _Worker:
    """The process of a job, seen from outside."""

    job: Job
    process: BaseProcess
    channel: Connection
    home: int | None
    """The only lane where it can work, as its GPU is there; None if it can work on any."""
    wants: Work = Work.NOTHING
    """What it would do next; nothing while it works."""
    lane: int | None = None
    """Where it works."""
    turns: int = 0
    """To train."""
    turns_by_lane: Counter[int] = field(default_factory=Counter)

    def tell(self, order: Order) -> None:
        """Send an order; a process that has ended is noticed when it is listened to."""
        with suppress(OSError):
            self.channel.send(order)

    def end(self) -> None:
        """Stop the process, if it runs."""
        self.channel.close()
        self.process.kill()
        self.process.join()


def work_on_lanes(
    lanes: Lanes,
    run_ids: Sequence[str],
    supply: Supply,
    watcher: Watcher,
    should_stop: Callable[[], bool],
) -> None:
    """Do all jobs that are supplied.

    Args:
        run_ids: of all runs; a job's number is a place in it.
        should_stop: asked several times a second.

    Raises:
        Interrupted: `should_stop` said so; every open run saved a checkpoint.
    """
    crew = _Crew(lanes, run_ids, supply, watcher)
    try:
        while not should_stop():
            crew.open()
            crew.assign()
            if crew.workers:
                crew.listen()
            elif supply.is_empty():
                return
            else:  # another command has it
                time.sleep(_LISTEN_SECONDS)
        crew.stop()
    finally:
        for worker in crew.workers:
            worker.end()


class _Crew:
    """The processes, and who of them works where."""

    def __init__(self, lanes: Lanes, run_ids: Sequence[str], supply: Supply, watcher: Watcher) -> None:
        self.workers: list[_Worker] = []
        self._lanes = lanes
        self._cpus = shares_of_cpus(lanes.count, lanes.threads)
        self._gpus = gpus(lanes.count)
        self._board = Board(_CONTEXT, lanes.count, run_ids)
        self._supply = supply
        self._watcher = watcher
        self._phase = Work.TRAINING
        """What lanes prefer to do."""
        self._random = random.Random(0)
        self._stopped: list[str] = []
        self._next_look = 0.0
        """When the supply is asked again."""

    def open(self) -> None:
        """Start the processes of the jobs that can be begun, if that may have changed."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _POLL_SECONDS
        while jobs := self._supply.take():
            home = self._quietest_lane() if self._gpus else None
            for job in jobs:
                ours, theirs = _CONTEXT.Pipe()
                gpu = None if home is None else self._gpus[home]
                arguments = (job, self._board, self._lanes.threads, gpu, theirs)
                process = _CONTEXT.Process(target=work, args=arguments, daemon=True)
                _start_server()
                process.start()
                theirs.close()
                self.workers.append(_Worker(job, process, ours, home))

    def _quietest_lane(self) -> int:
        """Return the lane that the fewest runs are bound to."""
        homes = Counter(worker.home for worker in self.workers)
        return min(range(self._lanes.count), key=lambda lane: homes[lane])

    def assign(self) -> None:
        """Give every free lane to a run that waits."""
        taken = {worker.lane for worker in self.workers}
        for lane in range(self._lanes.count):
            if lane in taken:
                continue
            worker = self._next(lane)
            if worker is None:
                self._board.assign(lane, Work.NOTHING, 0)
                self._watcher.assigned(lane, None, Work.NOTHING)
                continue
            self._board.assign(lane, worker.wants, worker.job.number)
            self._watcher.assigned(lane, worker.job, worker.wants)
            if worker.wants == Work.TRAINING:
                worker.turns += 1
                worker.turns_by_lane[lane] += 1
            worker.lane, worker.wants = lane, Work.NOTHING
            worker.tell(Turn(lane=lane, cpus=self._cpus[lane], steps=self._lanes.turns))

    def _next(self, lane: int) -> _Worker | None:
        """Choose who works next: of those that would train the one with the fewest turns, so far and here.

        Ties are decided by chance, so that no two runs are always neighbours.
        """
        if not any(worker.wants == self._phase for worker in self.workers):
            self._phase = Work.OTHER if self._phase == Work.TRAINING else Work.TRAINING
        return min(
            (worker for worker in self.workers if worker.wants and worker.home in (None, lane)),
            key=lambda worker: (
                worker.wants != self._phase,
                worker.turns,
                worker.turns_by_lane[lane],
                self._random.random() if self._lanes.count > 1 else 0,
            ),
            default=None,
        )

    def listen(self) -> None:
        """Wait for messages, and take them in."""
        by_channel = {worker.channel: worker for worker in self.workers}
        for channel in wait(list(by_channel), _LISTEN_SECONDS):
            assert isinstance(channel, Connection)
            worker = by_channel[channel]
            try:
                message: Message = channel.recv()
            except (EOFError, OSError):  # the process has ended
                worker.process.join()
                message = ("ended", _cause(worker.process.exitcode))
            self._take_in(worker, message)

    def _take_in(self, worker: _Worker, message: Message) -> None:
        if message[0] == "step":
            self._watcher.stepped(worker.job, message[1])
            return
        if message[0] == "waits":
            worker.lane, worker.wants = None, message[1]
            return
        self.workers.remove(worker)
        worker.end()
        self._next_look = 0.0
        if message[0] == "ended":
            self._supply.ended(worker.job, message[1])
        elif message[0] == "interrupted":
            self._stopped.append(message[1])
        else:
            self._supply.put_back(worker.job)

    def stop(self) -> None:
        """Let every run save a checkpoint and end.

        Raises:
            Interrupted: always.
        """
        for worker in self.workers:
            worker.tell("stop")
        while self.workers:
            self.listen()
        if len(self._stopped) == 1:
            raise Interrupted(self._stopped[0])
        raise Interrupted(f"stopped, {len(self._stopped)} runs saved")


def _cause(status: int | None) -> str:
    """Say why a process ended without a message."""
    if status == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out; try fewer --lanes"
    return f"its process ended (exit status {status})"
