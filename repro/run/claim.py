"""Keep other processes off what one works on: those of this machine, and of others that share its files.

`flock` is exact and ends with its process, but does not reach every shared file system. Beside the locked
file stands a lease that says who has it. Its holder touches it every half minute; a lease of another machine
that was not touched for five minutes is nobody's, and so is that of a job which was queued again since.
"""

import math
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from repro.errors import InUse, UserError
from repro.results.base import Record
from repro.results.files import write_file

_REFRESH_SECONDS = 30.0
_STALE_SECONDS = 300.0
"""Age from which on another machine may take a lease over."""
_MARGIN_SECONDS = 30.0
"""How much younger a lease may be and still be taken over by another machine at this very moment."""
_SETTLE_SECONDS = 2.0
"""After so long it is clear which of several machines that took over a lease has it: the last one."""
_WATCH_SECONDS = 3 * _REFRESH_SECONDS
"""Within so long a holder that is alive touches its lease, however late others see it."""
_JOB_IDS = ("SLURM_JOB_ID", "SUBMITIT_LOCAL_JOB_ID")
"""Variables by which a scheduler tells a process the number of its job."""
_RESTARTS = "SLURM_RESTART_COUNT"
"""Variable by which Slurm tells a job how often it was queued again; not there before the first time."""


class Lease(Record):
    """`.<name>.lease` beside `.<name>.lock`: who has it."""

    host: str
    process: int
    job: str | None
    """Number of the scheduler's job that the process belongs to; None outside of one."""
    restarts: int
    """How often that job had been queued again."""
    work: str
    """What is done under the claim, for those who would do the same."""


def lease_of(lock: Path) -> Path:
    """Return the lease that stands beside a locked file (`.lock`, or `.<name>.lock`)."""
    return lock.with_name(f"{lock.name.removesuffix('lock')}lease")


def is_claimed(lock: Path) -> bool:
    """Return whether a process has what a file stands for at this moment.

    Raises:
        OSError: the file cannot be opened.
    """
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            found = _read(lease_of(lock))
            return found is not None and _is_held_elsewhere(*found, lock, _own_lease(""))
    except Timeout:
        return True


class Claim:
    """The right to something, which one process has at a time. For the thread that made it."""

    def __init__(self, lock: Path, work: str = "") -> None:
        """Prepare it; nothing is claimed yet.

        Args:
            work: what is done under it.
        """
        self._path = lock
        self._lock = FileLock(lock, timeout=0)
        self._lease = lease_of(lock)
        self._own = _own_lease(work)
        self._content = self._own.model_dump_json().encode()
        self._ended = threading.Event()
        self._is_lost = False
        self._first_seen: tuple[bytes, float] | None = None
        """Another's lease, and when it had been touched, at the first of several looks."""
        self._first_look = -math.inf
        self.is_done_by_another = False
        """Whether, when `acquire` last failed, a process that is alive had it for the same work.

        Only that another machine touches its lease again shows that its process is alive.
        """

    @property
    def is_held(self) -> bool:
        """Whether this process has it."""
        return self._lock.is_locked

    def acquire(self) -> bool:
        """Take it unless another process has it; return whether this one has it now.

        Raises:
            OSError: the folder cannot be made or written to.
        """
        if self.is_held:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            self._see(_read(self._lease), is_alive=True)
            return False
        taken = False
        try:
            taken = self._take_lease()
        finally:
            if not taken:
                self._lock.release()
        if taken:
            self._ended, self._is_lost = threading.Event(), False
            threading.Thread(target=self._keep_fresh, args=(self._ended,), daemon=True).start()
        return taken

    def release(self) -> None:
        """Let others have it, if this process has it."""
        if not self.is_held:
            return
        self._ended.set()
        with suppress(OSError):
            if self._is_mine():
                self._lease.unlink()
        self._lock.release()

    def check(self) -> None:
        """Make sure that this process still has it.

        Raises:
            InUse: this machine stood still for so long that another one took over.
        """
        if self._is_lost:
            raise InUse(f"{self._path.parent}: another machine has taken over, as this one stood still")

    def _take_lease(self) -> bool:
        """Write the lease, if no other machine has it; the file is locked, so nobody here has."""
        found = _read(self._lease)
        if found is None:
            try:
                with self._lease.open("xb") as stream:
                    stream.write(self._content)
            except FileExistsError:  # another machine was faster
                return False
            return True
        if _is_held_elsewhere(*found, self._path, self._own):
            self._see(found)
            return False
        age = _age(found[1], self._path)
        write_file(self._lease, self._content)
        if age < _STALE_SECONDS - _MARGIN_SECONDS:  # of this machine: no other one takes it
            return True
        time.sleep(_SETTLE_SECONDS)
        return self._is_mine()

    def _see(self, found: tuple[bytes, float] | None, *, is_alive: bool = False) -> None:
        """Take in the lease of who has it."""
        now = time.monotonic()
        if now - self._first_look > _WATCH_SECONDS:
            self._first_seen, self._first_look = found, now
        lease = None if found is None else _parsed(found[0], self._path)
        is_alive = is_alive or found != self._first_seen
        self.is_done_by_another = is_alive and lease is not None and lease.work == self._own.work

    def _is_mine(self) -> bool:
        found = _read(self._lease)
        return found is not None and found[0] == self._content

    def _keep_fresh(self, ended: threading.Event) -> None:
        while not ended.wait(_REFRESH_SECONDS):
            with suppress(OSError):  # where files are out of reach the lease grows old
                found = _read(self._lease)
                if found is not None and found[0] != self._content:
                    self._is_lost = True
                    return
                os.utime(self._lease)


def _own_lease(work: str) -> Lease:
    return Lease(
        host=socket.gethostname(),
        process=os.getpid(),
        job=next(filter(None, map(os.environ.get, _JOB_IDS)), None),
        restarts=int(os.environ.get(_RESTARTS) or 0),
        work=work,
    )


def _parsed(content: bytes, lock: Path) -> Lease | None:
    try:
        return Lease.parse(content, lock)
    except UserError:
        return None


def _read(lease: Path) -> tuple[bytes, float] | None:
    """Read a lease and when it was last touched; None if there is none.

    It is opened for both, as that makes a shared file system forget what it remembers of the file.
    """
    try:
        with lease.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _age(touched: float, lock: Path) -> float:
    """Return the seconds since a file was touched, by the clock that touches files beside it."""
    os.utime(lock)
    return lock.stat().st_mtime - touched


def _is_held_elsewhere(content: bytes, touched: float, lock: Path, own: Lease) -> bool:
    """Tell whether another machine holds a lease; one that cannot be read may be of any machine.

    Args:
        lock: the file beside it, which this process has locked: nobody on this machine holds the lease.
        own: what this process would write.
    """
    lease = _parsed(content, lock)
    if lease is not None:
        is_requeued = own.job is not None and lease.job == own.job and lease.restarts < own.restarts
        if lease.host == own.host or is_requeued:
            return False
    return _age(touched, lock) < _STALE_SECONDS
