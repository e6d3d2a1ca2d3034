"""What of a study is done when: comparisons, what has to wait, and what another command does."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import read_object
from factories import make_result
from filelock import FileLock
from planned import SCHEMES, finish, planned
from told import ROOM, Told

from repro.errors import UserError
from repro.results.files import write_json
from repro.run import claim
from repro.run.claim import Lease
from repro.study.execute import Memory, Undone
from repro.study.failures import Failures
from repro.study.lanes import Lanes
from repro.study.plan import PlannedRun
from repro.study.seat import Job
from repro.study.targets import baselines_of


def work(
    runs: Sequence[PlannedRun],
    *,
    study: str = "gates",
    lanes: int = 1,
    turns: int = 10,
    memory: Memory = ROOM,
    told: Told | None = None,
    failures: Failures | None = None,
) -> Undone:
    shares = Lanes(count=lanes, threads=1, turns=turns)
    return Undone(runs, baselines_of({study: runs}), shares, memory, told or Told(), failures)


def names(runs: Sequence[PlannedRun], jobs: Sequence[Job]) -> list[str]:
    return [f"{runs[job.number].config.task} {runs[job.number].variant} {job.config.seed}" for job in jobs]


def end(work: Undone, runs: Sequence[PlannedRun], jobs: Sequence[Job], loss: float = 0.5) -> None:
    """Let jobs end well."""
    for job in jobs:
        result = make_result(
            job.config.task,
            job.config.gate,
            job.config.seed,
            run_id=job.config.run_id,
            curve=[(0, 0.0, 1.0), (20, 1.0, loss)],
        )
        folder = runs[job.number].folder
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.result, result.to_json())
        work.ended(job, result)


def test_as_many_comparisons_as_lanes(tmp_path: Path) -> None:
    runs = planned(tmp_path, ("sst2", "soda"), seeds=2)
    some = work(runs, lanes=2)
    first, second = some.take(), some.take()
    assert names(runs, first) == [f"sst2 {scheme} 0" for scheme in SCHEMES]
    assert names(runs, second) == [f"sst2 {scheme} 1" for scheme in SCHEMES]
    assert some.take() == ()
    end(some, runs, first[1:])
    assert some.take() == ()
    end(some, runs, first[:1])
    assert names(runs, some.take()) == [f"soda {scheme} 0" for scheme in SCHEMES]
    assert not some.is_empty()


def test_after_the_budgets_the_targets(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    told = Told()
    some = work(runs, study="schemes", told=told)
    jobs = some.take()
    end(some, runs, jobs[1:2], loss=0.25)
    end(some, runs, [jobs[0], *jobs[2:]])
    further = some.take()
    assert [(job.config.gate, job.until) for job in further] == [
        ("dense", 0.25),
        ("top-1", 0.25),
        ("adaptive", 0.25),
    ]
    assert told.starts[4:] == [("dense", 0.25), ("top-1", 0.25), ("adaptive", 0.25)]
    assert told.settled_runs == ["top-2 0"]
    for run in runs:
        run.folder.checkpoint.mkdir()
    for job in further:
        some.ended(job, "no memory")
    assert some.take() == ()
    assert some.is_empty()
    assert not any(run.folder.checkpoint.exists() for run in runs)
    assert set(some.failed.values()) == {"no memory"}


def test_memory_limits_how_many_are_open(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    some = work(runs, memory=Memory(of_run=lambda run: 3.0, available=10.0))
    first = some.take()
    assert names(runs, first) == ["sst2 dense 0", "sst2 top-2 0"]  # 6 of 8
    assert some.take() == ()
    end(some, runs, first[:1])
    assert names(runs, some.take()) == ["sst2 top-1 0"]
    large = work(planned(tmp_path / "large"), memory=Memory(of_run=lambda run: 30.0, available=10.0))
    assert len(large.take()) == 1
    few = work(planned(tmp_path / "few"), memory=Memory(of_run=lambda run: 0.0, available=None, at_once=3))
    assert len(few.take()) == 3


def test_without_turns_there_are_no_more_runs_than_lanes(tmp_path: Path) -> None:
    runs = planned(tmp_path, ("sst2", "soda"))
    some = work(runs, lanes=3, turns=0)
    assert names(runs, some.take()) == ["sst2 dense 0", "sst2 top-2 0", "sst2 top-1 0"]
    assert some.take() == ()


def test_what_another_command_does_is_left_to_it(tmp_path: Path) -> None:
    runs = planned(tmp_path, ("sst2", "soda"))
    one, other = work(runs), work(runs, told=(told := Told()))
    mine = one.take()
    theirs = other.take()
    assert names(runs, mine) == [f"sst2 {scheme} 0" for scheme in SCHEMES]
    assert names(runs, theirs) == [f"soda {scheme} 0" for scheme in SCHEMES]
    end(other, runs, theirs)
    assert other.take() == ()
    assert not other.is_empty()  # sst2 is still going on
    end(one, runs, mine)
    assert one.take() == ()
    assert other.take() == ()
    assert other.is_empty()
    assert [variant for variant, _ in told.outcomes] == [*SCHEMES, *SCHEMES]


def test_a_run_that_is_trained_by_itself_meanwhile(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    some = work(runs)
    runs[0].folder.path.mkdir(parents=True)
    with FileLock(runs[0].folder.path / ".lock"):
        jobs = some.take()
        assert names(runs, jobs) == [f"sst2 {scheme} 0" for scheme in SCHEMES[1:]]
    some.put_back(jobs[0])  # in use, as its process found
    assert names(runs, some.take()) == ["sst2 dense 0", "sst2 top-2 0"]


def test_one_of_several_jobs_leaves_the_rest_to_the_others(tmp_path: Path) -> None:
    """It does not wait for them, and takes what one of them leaves."""
    runs, failures = planned(tmp_path, ("sst2", "soda")), Failures(tmp_path / "failed")
    one, other = work(runs, failures=failures), work(runs, failures=failures)
    mine, theirs = one.take(), other.take()
    assert not other.is_empty()
    end(other, runs, theirs)
    assert other.take() == ()
    assert other.is_empty()
    one.release()
    assert names(runs, other.take()) == names(runs, mine)
    assert not other.is_empty()
    other.release()


def test_what_failed_in_one_job_is_not_tried_by_another(tmp_path: Path) -> None:
    runs, failures = planned(tmp_path), Failures(tmp_path / "failed")
    one, other = work(runs, failures=failures), work(runs, failures=failures, told=(told := Told()))
    mine = one.take()
    assert other.take() == ()
    one.ended(mine[0], "no memory")
    end(one, runs, mine[1:2])
    one.release()
    assert failures.reason(mine[0].config.run_id) == "no memory"
    assert failures.reason(mine[2].config.run_id) is None
    assert names(runs, other.take()) == [f"sst2 {scheme} 0" for scheme in SCHEMES[2:]]
    assert told.outcomes[0] == ("dense", "no memory")
    assert other.failed == {mine[0].config.run_id: "no memory"}
    # A command without jobs tries again.
    other.release()
    again = work(runs)
    assert names(runs, again.take()) == [f"sst2 {scheme} 0" for scheme in ("dense", *SCHEMES[2:])]
    again.release()


def leave_lease(runs: Sequence[PlannedRun], touched: float, work: str) -> Path:
    """Put the lease of another machine beside a lock of the first comparison, which is not locked here."""
    folder = runs[0].folder.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".sst2-s0.lock").touch()
    lease = folder / ".sst2-s0.lease"
    content = Lease(host="node7", process=12, job=None, restarts=0, work=work)
    lease.write_text(content.model_dump_json(), encoding="utf-8")
    os.utime(lease, (touched, touched))
    return lease


def work_of(runs: Sequence[PlannedRun]) -> str:
    """What a lease says of these runs."""
    some = work(runs)
    some.take()
    found = read_object(runs[0].folder.path.parent / ".sst2-s0.lease")["work"]
    some.release()
    assert isinstance(found, str)
    return found


def test_a_comparison_that_another_machine_has(tmp_path: Path) -> None:
    """It is left to it once the lease was touched: until then that machine may be dead."""
    runs = planned(tmp_path, ("sst2", "soda"))
    same, now = work_of(runs), time.time()
    leave_lease(runs, now - 60, same)
    some = work(runs, failures=Failures(tmp_path / "failed"))
    jobs = some.take()
    assert names(runs, jobs) == [f"soda {scheme} 0" for scheme in SCHEMES]
    end(some, runs, jobs)
    assert some.take() == ()
    assert not some.is_empty()
    lease = leave_lease(runs, now - 30, same)
    assert some.take() == ()
    assert some.is_empty()
    lease.unlink()
    assert names(runs, some.take()) == [f"sst2 {scheme} 0" for scheme in SCHEMES]
    some.release()
    assert list(lease.parent.glob("*.lease")) == []


def test_a_machine_that_died_is_followed_when_its_lease_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "_SETTLE_SECONDS", 0.0)
    runs = planned(tmp_path)
    same = work_of(runs)
    leave_lease(runs, time.time() - 290, same)
    some = work(runs, failures=Failures(tmp_path / "failed"))
    assert some.take() == ()
    assert not some.is_empty()
    leave_lease(runs, time.time() - 301, same)
    assert names(runs, some.take()) == [f"sst2 {scheme} 0" for scheme in SCHEMES]
    some.release()


def test_who_does_other_runs_of_a_comparison_is_waited_for(tmp_path: Path) -> None:
    """Another study has more rows of the same task and seed: it will not do these."""
    runs, failures = planned(tmp_path), Failures(tmp_path / "failed")
    one, other = work(runs, failures=failures), work(runs[:2], failures=failures)
    assert one.take() != ()
    assert other.take() == ()
    assert not other.is_empty()
    one.release()
    assert names(runs[:2], other.take()) == ["sst2 dense 0", "sst2 top-2 0"]
    other.release()


def test_what_starts_from_a_model_waits_for_it(tmp_path: Path) -> None:
    runs = planned(tmp_path, study="adamoe")
    some = work(runs, study="adamoe")
    first = some.take()
    assert names(runs, first) == [f"sst2 {runs[0].variant} 0"]
    assert some.take() == ()
    some.ended(first[0], "no memory")
    assert some.take() == ()
    assert some.is_empty()
    reason = f"the run that it starts from, {runs[0].config.run_id}, is not finished"
    assert some.failed == {
        runs[0].config.run_id: "no memory",
        **{run.config.run_id: reason for run in runs[1:]},
    }


def test_a_model_that_is_gone(tmp_path: Path) -> None:
    first, *others = planned(tmp_path, study="adamoe")
    finish(first)
    some = work([first, *others], study="adamoe")
    assert some.take() == ()
    reason = (
        f"the run that it starts from, {first.config.run_id}, has no model any more;"
        " delete its folder to train it again"
    )
    assert some.failed == {run.config.run_id: reason for run in others}


def test_nothing_to_do() -> None:
    some = work([])
    assert some.take() == ()
    assert some.is_empty()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "mini").write_text("")
    with pytest.raises(UserError, match=r"--out .*: cannot be written"):
        work(planned(tmp_path)).take()
