"""Time and memory of this process, and the processor time that other virtual machines took."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from repro import machine
from repro.machine import Stopwatch, busy_cpu_seconds, cpu_steal_seconds, peak_memory_bytes
from repro.run import result
from repro.training.lane import ALONE, Lane
from repro.training.state import TrainingState

CPU = torch.device("cpu")


def test_stopwatch_measures_the_last_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("repro.machine.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = Stopwatch(CPU)
    assert watch.seconds == 0.0
    with watch:
        pass
    assert watch.seconds == 2.5
    with watch:
        pass
    assert watch.seconds == 1.0  # the trainer adds the stretches up


def test_stopwatch_measures_seconds() -> None:
    watch = Stopwatch(CPU)
    with watch:
        time.sleep(0.02)
    assert 0.02 <= watch.seconds < 2


def test_stopwatch_tells_what_was_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    stolen = iter([5.0, 5.25, 7.0, None, None, 8.0])
    monkeypatch.setattr("repro.machine.cpu_steal_seconds", lambda: next(stolen))
    watch = Stopwatch(CPU)
    stolen_seconds = []
    for _ in range(3):
        with watch:
            pass
        stolen_seconds.append(watch.cpu_steal_seconds)
    assert stolen_seconds == [0.25, None, None]


def test_stolen_time_is_read_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "cpu  5625918 229125 227545 1642602 7116 0 4221 381743 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"
    monkeypatch.setattr("repro.machine.os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    monkeypatch.setattr("repro.machine.Path", lambda path: {"/proc/stat": File(line)}[path])
    assert cpu_steal_seconds() == 3817.43
    # All but idle, waiting and stolen time: 5625918 + 229125 + 227545 + 0 + 4221 hundredths.
    assert busy_cpu_seconds() == 60868.09
    monkeypatch.setattr("repro.machine.Path", lambda path: File("cpu  1 2 3"))
    assert cpu_steal_seconds() is None
    assert busy_cpu_seconds() is None
    monkeypatch.setattr("repro.machine.Path", lambda path: File(None))
    assert cpu_steal_seconds() is None


@dataclass
class File:
    """A file with this content; None if it cannot be read."""

    content: str | None

    def read_text(self, encoding: str) -> str:
        if self.content is None:
            raise FileNotFoundError
        return self.content


def test_the_cpu_steal_fraction_of_a_run() -> None:
    state, watch = TrainingState(), Stopwatch(CPU)
    for watch.seconds, watch.cpu_steal_seconds in ((1.0, 0.5), (3.0, 0.0)):
        state.add_time(watch, ALONE)
    assert (state.train_seconds, state.step_seconds, state.cpu_steal_seconds) == (4.0, [1.0, 3.0], 0.5)
    assert result._cpu_steal_fraction(state) == 0.5 / (4.0 * (os.cpu_count() or 1))
    watch.cpu_steal_seconds = None
    state.add_time(watch, ALONE)
    assert result._cpu_steal_fraction(state) is None


def test_stopwatch_stops_when_the_stretch_fails() -> None:
    watch = Stopwatch(CPU)
    with pytest.raises(RuntimeError, match="stop"), watch:
        raise RuntimeError("stop")
    assert watch.seconds > 0


def test_peak_memory_is_in_bytes_and_never_falls_by_itself() -> None:
    before = peak_memory_bytes(CPU)
    # A process with torch in it needs tens of megabytes, and less than a terabyte.
    assert 20e6 < before < 1e12
    touched = torch.ones(4_000_000)
    assert peak_memory_bytes(CPU) >= max(before, touched.nbytes)


def test_freed_memory_that_was_kept_can_be_given_back() -> None:
    # In a process of its own: how memory is kept is a setting of the whole process.
    program = """
import psutil, torch
from repro.machine import give_back_freed_memory, reuse_freed_memory
reuse_freed_memory()
process = psutil.Process()
before = process.memory_info().rss
blocks = [torch.ones(5_000_000) for _ in range(20)]
last = torch.ones(1000)
del blocks
give_back_freed_memory()
print(process.memory_info().rss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6  # of 400 MB


def test_only_fair_steps_count() -> None:
    """Of five steps the second and the third; with one of them a neighbour trained, with both another."""
    fair = iter([False, True, True, False, False])
    beside = iter([["a", "b"], ["b"]])

    class Shared(Lane):
        def is_fair(self) -> bool:
            return next(fair)

        def neighbours(self) -> list[str]:
            return next(beside)

    state, lane, watch = TrainingState(), Shared(), Stopwatch(CPU)
    for seconds in (9.0, 2.0, 4.0, 7.0, 8.0):
        watch.seconds = seconds
        state.add_time(watch, lane)
    assert (state.train_seconds, state.fair_steps, state.seconds_per_step()) == (30.0, 2, 3.0)
    assert state.neighbours == {"a": 1, "b": 2}
    state.step, state.epoch_ends = 5, [2, 3]
    assert state.seconds_by_epoch() == [2.0, 4.0, 7.5]  # of the last epoch none is fair: all of them


class TestCpus:
    """Four cores with two CPUs each: 0 and 4 are of one core, 1 and 5 of the next."""

    @pytest.fixture(autouse=True)
    def cpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
        monkeypatch.setattr(machine, "_siblings", lambda cpu: [cpu % 4, cpu % 4 + 4])

    @pytest.mark.parametrize(
        ("shares", "threads", "expected"),
        [
            (1, 4, [(0, 1, 2, 3)]),
            (2, 2, [(0, 1), (2, 3)]),
            (4, 1, [(0,), (1,), (2,), (3,)]),
            (6, 1, [(0,), (1,), (2,), (3,), (4,), (5,)]),  # more than cores: siblings
            (3, 2, [(0, 1), (2, 3), (4, 5)]),
            (10, 1, [*((cpu,) for cpu in range(8)), (0,), (1,)]),  # more than CPUs
            (1, 16, [tuple(range(8))]),
        ],
    )
    def test_each_share_has_cores_of_its_own_while_there_are_any(
        self, shares: int, threads: int, expected: list[tuple[int, ...]]
    ) -> None:
        assert machine.shares_of_cpus(shares, threads) == expected

    def test_cores(self) -> None:
        assert machine.cores() == 4


def test_all_threads_of_a_process_are_bound() -> None:
    """In a process of its own, with a thread that was there before."""
    script = """
import os, threading
from repro.machine import pin
gate = threading.Event()
found = []
thread = threading.Thread(target=lambda: (gate.wait(), found.append(os.sched_getaffinity(0))))
thread.start()
cpu = min(os.sched_getaffinity(0))
pin(())
assert len(os.sched_getaffinity(0)) == len(os.sched_getaffinity(os.getppid()))
pin([cpu])
gate.set()
thread.join()
assert found == [{cpu}] == [os.sched_getaffinity(0)], found
"""
    subprocess.run([sys.executable, "-c", script], check=True)
