"""Claims: one process at a time, on this machine and on others that share its files."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import SMALL, CommandLine, only_run, read_object
from filelock import FileLock
from resolved import resolved

from repro.errors import InUse
from repro.run import claim
from repro.run.claim import Claim, Lease, is_claimed, lease_of
from repro.run.execute import execute
from repro.run.launch import folder_of


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A file to be locked, in a folder that is not there yet."""
    return tmp_path / "runs" / ".sst2-s0.lock"


def leave_lease(
    lock: Path, age: float, host: str = "node7", content: bytes | None = None, work: str = ""
) -> Path:
    """Put a lease of another machine beside a lock, last touched so many seconds ago."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    lease = lease_of(lock)
    written = Lease(host=host, process=12, job="4242", restarts=1, work=work).model_dump_json().encode()
    lease.write_bytes(written if content is None else content)
    touched = time.time() - age
    os.utime(lease, (touched, touched))
    return lease


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else takes over at the same moment, so there is nothing to wait for."""
    monkeypatch.setattr(claim, "_SETTLE_SECONDS", 0.0)


def test_names_of_leases() -> None:
    assert lease_of(Path("runs/x/.lock")) == Path("runs/x/.lease")
    assert lease_of(Path("runs/.sst2-s0.lock")) == Path("runs/.sst2-s0.lease")


def test_one_at_a_time(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    assert not is_claimed(lock)
    one, other = Claim(lock), Claim(lock)
    assert one.acquire()
    assert one.acquire()
    assert one.is_held
    assert read_object(lease_of(lock)) == {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "job": "4242",
        "restarts": 0,
        "work": "",
    }
    assert is_claimed(lock)
    assert not other.acquire()
    assert not other.is_held
    other.release()  # has nothing
    assert is_claimed(lock)
    one.release()
    assert [path.name for path in lock.parent.iterdir()] == [lock.name]
    assert not is_claimed(lock)
    assert other.acquire()
    other.release()


def test_outside_of_a_job(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SLURM_JOB_ID", "SUBMITIT_LOCAL_JOB_ID"):
        monkeypatch.delenv(variable, raising=False)
    one = Claim(lock)
    assert one.acquire()
    assert read_object(lease_of(lock))["job"] is None
    one.release()


@pytest.mark.parametrize(("age", "is_held"), [(0, True), (290, True), (310, False)])
def test_a_lease_of_another_machine(lock: Path, settled: None, age: float, is_held: bool) -> None:
    """It counts until it is five minutes old."""
    lease = leave_lease(lock, age)
    assert is_claimed(lock) == is_held
    one = Claim(lock)
    assert one.acquire() != is_held
    assert one.is_held != is_held
    assert read_object(lease)["host"] == ("node7" if is_held else socket.gethostname())
    one.release()
    assert lease.exists() == is_held
    with FileLock(lock, timeout=0):  # and nothing of it stays locked
        pass


@pytest.mark.parametrize(
    ("job", "restarts", "is_held"), [("4242", "2", False), ("4242", "1", True), ("4243", "2", True)]
)
def test_a_job_that_is_queued_again_on_another_machine(
    lock: Path, monkeypatch: pytest.MonkeyPatch, job: str, restarts: str, is_held: bool
) -> None:
    """It was killed there without warning; its lease does not count, that of a process beside it does."""
    leave_lease(lock, 0)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert is_claimed(lock) == is_held
    one = Claim(lock)
    assert one.acquire() != is_held
    one.release()


class TestDoneByAnother:
    """Whether one need not wait: somebody alive does the same."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [1000.0]
        monkeypatch.setattr("repro.run.claim.time", SimpleNamespace(monotonic=lambda: now[0]))
        return now

    def test_a_lease_has_to_be_touched_while_one_looks(self, lock: Path, now: list[float]) -> None:
        leave_lease(lock, 100, work="sst2 seed 0")
        one = Claim(lock, "sst2 seed 0")
        for _ in range(3):
            assert not one.acquire()
            assert not one.is_done_by_another
            now[0] += 10
        leave_lease(lock, 0, work="sst2 seed 0")
        assert not one.acquire()
        assert one.is_done_by_another
        now[0] += 3600  # what was seen so long ago says nothing
        leave_lease(lock, 20, work="sst2 seed 0")
        assert not one.acquire()
        assert not one.is_done_by_another

    def test_other_work_does_not_count(self, lock: Path, now: list[float]) -> None:
        one = Claim(lock, "sst2 seed 0")
        for age in (100, 0):
            leave_lease(lock, age, work="more of sst2 seed 0")
            assert not one.acquire()
            assert not one.is_done_by_another

    def test_who_has_the_lock_is_alive(self, lock: Path) -> None:
        holder = Claim(lock, "sst2 seed 0")
        assert holder.acquire()
        for work, is_same in (("sst2 seed 0", True), ("more of sst2 seed 0", False)):
            one = Claim(lock, work)
            assert not one.acquire()
            assert one.is_done_by_another == is_same
        holder.release()


@pytest.mark.parametrize(("age", "is_held"), [(200, True), (400, False)])
def test_clocks_of_machines_do_not_matter(
    lock: Path, settled: None, monkeypatch: pytest.MonkeyPatch, age: float, is_held: bool
) -> None:
    """The file server is an hour ahead of this machine; age is by its clock alone."""
    ahead = 3600.0
    lease = leave_lease(lock, age - ahead)
    touch: Callable[..., None] = os.utime

    def touched_by_the_server(path: Path) -> None:
        now = time.time() + ahead
        touch(path, (now, now))

    monkeypatch.setattr("repro.run.claim.os.utime", touched_by_the_server)
    assert is_claimed(lock) == is_held
    one = Claim(lock)
    assert one.acquire() != is_held
    one.release()
    assert lease.exists() == is_held


def test_a_lease_of_a_process_that_was_killed(lock: Path) -> None:
    """Nobody on this machine has the lock, so its lease is nobody's at once."""
    script = f"""
import time
from pathlib import Path
from repro.run.claim import Claim
assert Claim(Path({str(lock)!r})).acquire()
print("taken", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        one = Claim(lock)
        assert is_claimed(lock)
        assert not one.acquire()
        process.send_signal(signal.SIGKILL)
    assert read_object(lease_of(lock))["process"] == process.pid
    assert not is_claimed(lock)
    start = time.monotonic()
    assert one.acquire()
    assert time.monotonic() - start < 1
    assert read_object(lease_of(lock))["process"] == os.getpid()
    one.release()
    assert not lease_of(lock).exists()


def test_two_machines_take_over_at_the_same_moment(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one that writes has it."""
    lease = leave_lease(lock, 400)
    slept = []

    def other_one_writes(seconds: float) -> None:
        slept.append(seconds)
        leave_lease(lock, 0, host="node8")

    stands = SimpleNamespace(sleep=other_one_writes, monotonic=time.monotonic)
    monkeypatch.setattr("repro.run.claim.time", stands)
    one = Claim(lock)
    assert not one.acquire()
    assert slept == [2.0]
    assert not one.is_held
    assert read_object(lease)["host"] == "node8"
    # An old lease of this machine may be taken over by another one, too.
    leave_lease(lock, 400, host=socket.gethostname())
    assert not one.acquire()
    assert slept == [2.0, 2.0]


def test_another_machine_is_faster(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = leave_lease(lock, 0)
    monkeypatch.setattr(claim, "_read", lambda path: None)
    assert not Claim(lock).acquire()
    assert read_object(lease)["host"] == "node7"


@pytest.mark.parametrize("content", [b"", b"{", b'{"host": 3}'])
def test_a_damaged_lease_counts_as_one_of_another_machine(lock: Path, settled: None, content: bytes) -> None:
    leave_lease(lock, 0, content=content)
    assert is_claimed(lock)
    assert not Claim(lock).acquire()
    leave_lease(lock, 400, content=content)
    assert not is_claimed(lock)
    one = Claim(lock)
    assert one.acquire()
    one.release()


def test_a_lease_is_kept_fresh_until_another_machine_has_it(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "_REFRESH_SECONDS", 0.01)
    one = Claim(lock)
    assert one.acquire()
    lease = lease_of(lock)
    os.utime(lease, (1, 1))
    wait_for(lambda: lease.stat().st_mtime > time.time() - 60)
    one.check()
    leave_lease(lock, 0)
    wait_for(lambda: is_lost(one))
    with pytest.raises(InUse, match=r"another machine has taken over, as this one stood still"):
        one.check()
    one.release()
    assert read_object(lease)["host"] == "node7"


def is_lost(held: Claim) -> bool:
    try:
        held.check()
    except InUse:
        return True
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_that_another_machine_does(cli: CommandLine, tmp_path: Path, settled: None) -> None:
    """It is left alone; when the lease is old the run is done, also with `--fresh`, and leaves none."""
    config, paths = resolved(overrides=SMALL, results=tmp_path)
    folder = folder_of(config, paths).path
    lease = leave_lease(folder / ".lock", 100)
    answer = cli.train("adaptive", tmp_path)
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.splitlines()[-1] == f"repro: {folder}: another process is doing this run"
    leave_lease(folder / ".lock", 400)
    assert cli.train("adaptive", tmp_path, "--fresh").status == 0
    assert not lease.exists()


def test_a_run_stops_when_another_machine_has_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths = resolved(overrides=SMALL, results=tmp_path)
    reported: list[int] = []

    def taken_over(self: Claim) -> None:
        if len(reported) == 2:
            raise InUse("another machine has taken over")

    monkeypatch.setattr(Claim, "check", taken_over)
    with pytest.raises(InUse):
        execute(
            config, paths, report=lambda progress: reported.append(progress.done), should_stop=lambda: False
        )
    assert reported == [1, 2]
    assert not is_claimed(only_run(tmp_path) / ".lock")
