"""Measure time and memory of this process, and read what they depend on from the machine."""

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from repro import provenance
from repro.results.environment import Environment

_OPENMP = ("OMP_", "GOMP_")
"""Prefixes of the variables that decide how OpenMP's threads run."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`: never return memory to the system, never map a block of its own."""


class Stopwatch:
    """Measure the seconds of a `with` block; the device is synchronised at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.cpu_steal_seconds: float | None = None
        """Taken by other virtual machines in the block, summed over CPUs; None if unknown."""

    def __enter__(self) -> "Stopwatch":
        self._synchronise()
        self._stolen = cpu_steal_seconds()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._synchronise()
        self.seconds = time.perf_counter() - self._start
        stolen = cpu_steal_seconds()
        self.cpu_steal_seconds = None if stolen is None or self._stolen is None else stolen - self._stolen

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def shares_of_cpus(shares: int, threads: int) -> list[tuple[int, ...]]:
    """Share out the CPUs that this process may use: so many to each share, all the same if they are too few.

    CPUs of one core, which share its arithmetic, are given to two shares only if there are not enough cores.
    Where processes cannot be bound to CPUs, shares are empty.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [()] * shares
    ranks = {cpu: _siblings(cpu).index(cpu) for cpu in os.sched_getaffinity(0)}
    order = sorted(ranks, key=lambda cpu: (ranks[cpu], cpu))
    places = [order[number % len(order)] for number in range(shares * threads)]
    return [
        tuple(sorted(set(places[start : start + threads]))) for start in range(0, shares * threads, threads)
    ]


def cores() -> int:
    """Return the number of cores that this process may use; CPUs of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_siblings(cpu)[0] for cpu in os.sched_getaffinity(0)})


def gpus(lanes: int) -> list[str]:
    """Return a GPU for every lane, as `CUDA_VISIBLE_DEVICES` names it; lanes share them if they are too few.

    None on a machine without GPUs. Nothing on them is initialised.
    """
    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return [names[lane % len(names)] for lane in range(lanes)]


def _siblings(cpu: int) -> list[int]:
    """Return the CPUs of the core of a CPU, in order; the CPU alone if the system does not tell."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        parts = [part.split("-") for part in path.read_text(encoding="ascii").strip().split(",")]
        listed = [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]
    except (OSError, ValueError):
        return [cpu]
    return sorted(listed) if cpu in listed else [cpu]


def pin(cpus: Sequence[int]) -> None:
    """Bind all threads of this process to CPUs; to none where there are none given."""
    if not cpus:
        return
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread.name), cpus)


def available_memory() -> int | None:
    """Return the bytes that new processes can have without swapping; None where the system does not tell."""
    with suppress(OSError, IndexError, ValueError):
        content = Path("/proc/meminfo").read_text(encoding="ascii")
        return 1024 * int(content.split("MemAvailable:")[1].split()[0])
    return None


def cpu_steal_seconds() -> float | None:
    """Return the time that other virtual machines took from this one since it booted, summed over CPUs.

    None where the system does not tell: on anything but Linux.
    """
    with suppress(OSError, IndexError, ValueError):
        total = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(total[8]) / os.sysconf("SC_CLK_TCK")
    return None


def busy_cpu_seconds() -> float | None:
    """Return the time that the CPUs of this machine have worked since it booted, summed over CPUs.

    None where the system does not tell: on anything but Linux.
    """
    with suppress(OSError, IndexError, ValueError):
        total = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        user, nice, system, _, _, interrupt, soft_interrupt = map(int, total[1:8])
        return (user + nice + system + interrupt + soft_interrupt) / os.sysconf("SC_CLK_TCK")
    return None


def reuse_freed_memory() -> None:
    """Let the C library keep the large blocks that are freed, and hand them out again.

    By default glibc maps each of them anew and the system clears it page by page: the gradients of
    all experts, in every step. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Return to the system what `reuse_freed_memory` kept, before work of other sizes begins."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def current_environment(device: torch.device) -> Environment:
    """Return the circumstances of this process: code, libraries, machine, threads, load at this moment."""
    variables = sorted(os.environ.items())
    return Environment(
        python=platform.python_version(),
        system=platform.system(),
        processor=_processor(),
        cores=os.cpu_count(),
        openmp={name: value for name, value in variables if name.startswith(_OPENMP)},
        packages=provenance.package_versions(),
        git_commit=provenance.git_commit(),
        git_modified=provenance.git_modified(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        load_average=os.getloadavg()[0],
    )


def _processor() -> str:
    """Return the model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak, where the system can: on GPUs, and for this process on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak since the last reset: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
