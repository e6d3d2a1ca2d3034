"""Processes of `repro` that begin at once: forked from one which has imported all that they need.

A fresh interpreter takes seconds for that, and a study has two of them: its own, and the one that forks its
runs. Here one is started for a whole session. It is told over its input what to start, and every process has
a keeper, which writes down how it ended.
"""

import importlib
import json
import multiprocessing.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

_POLL_SECONDS = 0.005


class Started:
    """A process, as far as tests need what `subprocess.Popen` offers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.returncode: int | None = None
        self.pid = int(self._wait_for("pid", time.monotonic() + 120))

    def poll(self) -> int | None:
        """Return the exit status, negative after a signal; None while it runs."""
        if self.returncode is None and (self._folder / "status").exists():
            self.returncode = int((self._folder / "status").read_text())
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the end."""
        self._wait_for("status", time.monotonic() + timeout)
        status = self.poll()
        assert status is not None
        return status

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Wait for the end, and return all that was printed."""
        self.wait(timeout)
        out, err = ((self._folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, if it runs."""
        self.send_signal(signal.SIGKILL)

    def _wait_for(self, name: str, deadline: float) -> str:
        while not (self._folder / name).exists():
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("repro", 0)
            time.sleep(_POLL_SECONDS)
        return (self._folder / name).read_text()


class Nursery:
    """Starts processes."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="repro-started-")
        self._count = 0

    def start(self, arguments: Sequence[str]) -> Started:
        """Start `repro ARGUMENTS` as the leader of a group of its own, with this process's environment."""
        if self._server is None:
            # Its name is that of a fork server's, as it stands in for that of a study, too.
            command = [sys.executable, __file__, "forkserver"]
            self._server = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert self._server.stdin is not None
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": dict(os.environ),
            "cwd": str(Path.cwd()),
        }
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        return Started(folder)

    def close(self) -> None:
        """End the server, and forget what processes printed."""
        if self._server is not None:
            self._server.communicate()
        self._folder.cleanup()


# --- in the server --------------------------------------------------------------------------------


def serve() -> None:
    """Import everything, then start what is asked for until the input ends."""
    from repro import plugins

    names = [
        plugins.module_name(family, name)
        for family in ("backbones", "metrics")
        for name in plugins.names(family)
    ]
    for name in (
        "repro.study.lanes",
        "repro.cli.main",
        "repro.cli.studies",
        "repro.cli.runs",
        "scipy.stats",
        *names,
    ):
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # of keepers nothing is kept
    while line := os.read(0, 1 << 20):
        while not line.endswith(b"\n"):
            line += os.read(0, 1 << 20)
        for request in line.splitlines():
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                keep(json.loads(request))


def keep(request: dict[str, Any]) -> None:
    """Start a process and wait for it; comes back in that process alone, to do the work."""
    folder = Path(request["folder"])
    process = os.fork()
    if process == 0:
        become(request, folder)
    write(folder / "pid", process)
    _, status = os.waitpid(process, 0)
    write(folder / "status", os.waitstatus_to_exitcode(status))
    os._exit(0)


def write(path: Path, number: int) -> None:
    """Write a file that is whole as soon as it is there."""
    part = path.with_suffix(".part")
    part.write_text(str(number))
    part.rename(path)


def become(request: dict[str, Any], folder: Path) -> NoReturn:
    """Go on as `python -m repro`."""
    os.setsid()
    opened = [
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")),
    ]
    for standard, descriptor in enumerate(opened):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.environ.clear()
    os.environ |= request["environment"]
    os.chdir(request["cwd"])
    sys.argv = ["repro", *request["arguments"]]
    vars(multiprocessing.util)["spawnv_passfds"] = fork_server
    from repro.cli.main import main

    main()
    sys.exit(0)


_spawn = multiprocessing.util.spawnv_passfds


def fork_server(path: bytes, arguments: Sequence[Any], kept: Sequence[int]) -> int:
    """Fork what would be the fork server of a study, in place of a fresh interpreter."""
    *_, program = arguments
    if "multiprocessing.forkserver" not in str(program):
        return int(_spawn(path, arguments, kept))
    process = os.fork()
    if process:
        return process
    # It must not hold what belongs to the other: locks, and the pipe by which it sees that one end.
    ends = sorted({-1, 0, 1, 2, *kept, os.sysconf("SC_OPEN_MAX")})
    for before, after in pairwise(ends):
        if before + 1 < after:  # an empty range would close all
            os.closerange(before + 1, after)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status = 1
    try:
        exec(program, {"__name__": "__main__"})
    except SystemExit:
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
