"""Measure time and memory of this process, and read what they depend on from the machine."""

import ctypes
import os
import platform
import resource
import sys
import time
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


def cpu_steal_seconds() -> float | None:
    """Return the time that other virtual machines took from this one since it booted, summed over CPUs.

    None where the system does not tell: on anything but Linux.
    """
    with suppress(OSError, IndexError, ValueError):
        total = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(total[8]) / os.sysconf("SC_CLK_TCK")
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
