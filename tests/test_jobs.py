"""How the runs of studies are shared out to jobs: how many there are, what is waited for, what they leave."""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import read_object
from factories import make_result
from planned import planned
from resolved import problems

from repro.errors import UserError
from repro.results.files import write_json
from repro.results.jobs import Submission
from repro.results.run import RunResult
from repro.run.scales import JobSettings
from repro.study.failures import Failures
from repro.study.jobs import Jobs
from repro.study.plan import PlannedRun
from repro.study.scheduler import QUEUED, Scheduler


class FakeCluster(Scheduler):
    """Its jobs are numbers, and their states what a test says."""

    poll_seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.now: dict[str, str] = {}
        self.names: list[str] = []
        self.cancelled: list[str] = []
        self.refusal: str | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        """Called whenever states are asked for, before they are told."""

    def submit(
        self,
        work: Callable[[], object],
        count: int,
        folder: Path,
        *,
        name: str,
        settings: JobSettings,
        cpus: int,
    ) -> list[str]:
        if self.refusal is not None:
            raise UserError(self.refusal)
        jobs = [str(len(self.now) + number) for number in range(1, count + 1)]
        self.now |= {job: "RUNNING" for job in jobs}
        self.names.append(name)
        return jobs

    def states(self, jobs: Sequence[str], folder: Path) -> dict[str, str]:
        self.meanwhile()
        return {job: self.now[job] for job in jobs if job in self.now}

    def follow(self, *steps: Callable[[], None]) -> None:
        """Do these one after the other whenever states are asked for; then all jobs are over."""
        left = list(steps)

        def meanwhile() -> None:
            (left.pop(0) if left else self.now.clear)()

        self.meanwhile = meanwhile

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs
        for job in jobs:
            del self.now[job]


class Told:
    """What is told of the jobs."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self.seen: list[dict[str, str]] = []

    def states(self, states: Mapping[str, str]) -> None:
        self.seen.append(dict(states))

    def ended(self, run: PlannedRun, outcome: RunResult | str) -> None:
        what = outcome if isinstance(outcome, str) else outcome.status
        self.outcomes.append((f"{run.config.task} {run.variant} {run.config.seed}", what))


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def runs_of(tmp_path: Path, tasks: Sequence[str] = ("sst2", "soda"), seeds: int = 2) -> list[PlannedRun]:
    """Top-2 and top-1 of two tasks and seeds: four comparisons."""
    return planned(tmp_path, tasks, seeds=seeds, only=("top-2", "top-1"))


def jobs_of(runs: Sequence[PlannedRun], cluster: Scheduler, study: str = "gates") -> Jobs:
    """`gates` has no baseline, so no run goes on to a target."""
    return Jobs({study: runs}, runs[0].paths.results / "mini", cluster)


def submit(jobs: Jobs, at_most: int | None = None, shared: list[Failures] | None = None) -> list[str]:
    """Submit jobs that do nothing; what they tell each other is appended to `shared`."""

    def work(failures: Failures) -> Callable[[], object]:
        if shared is not None:
            shared.append(failures)
        return lambda: None

    return jobs.submit(work, JobSettings(jobs=at_most), 1)


def finish(*runs: PlannedRun, loss: float = 0.5) -> None:
    for run in runs:
        result = make_result(
            run.config.task,
            run.config.gate,
            run.config.seed,
            run_id=run.config.run_id,
            curve=[(0, 0.0, 1.0), (20, 1.0, loss)],
        )
        run.folder.path.mkdir(parents=True, exist_ok=True)
        write_json(run.folder.result, result.to_json())


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "mini").glob("jobs/*"))


class TestSubmitting:
    def test_a_job_for_each_comparison_that_is_not_done(self, tmp_path: Path, cluster: FakeCluster) -> None:
        runs = runs_of(tmp_path)
        finish(*runs[:2])
        finish(runs[2])
        assert submit(jobs_of(runs, cluster)) == ["1", "2", "3"]
        assert cluster.names == ["repro-gates"]
        assert folders(tmp_path) == ["gates-1"]
        assert read_object(tmp_path / "mini" / "jobs" / "gates-1" / "submission.json") == {
            "launcher": "processes",
            "host": socket.gethostname(),
            "jobs": ["1", "2", "3"],
            "runs": [run.config.run_id for run in runs],
        }

    def test_at_most_so_many(self, tmp_path: Path, cluster: FakeCluster) -> None:
        runs = runs_of(tmp_path)
        assert submit(jobs_of(runs, cluster), 3) == ["1", "2", "3"]
        assert submit(jobs_of(runs, cluster), 3) == []
        del cluster.now["2"]
        assert len(submit(jobs_of(runs, cluster), 3)) == 1
        assert folders(tmp_path) == ["gates-1", "gates-2"]

    def test_nothing_to_do(self, tmp_path: Path, cluster: FakeCluster) -> None:
        runs = runs_of(tmp_path)
        finish(*runs)
        jobs = jobs_of(runs, cluster)
        assert submit(jobs, 5) == []
        assert jobs.wait(Told()) == {}
        assert not (tmp_path / "mini" / "jobs").exists()

    def test_a_target_that_is_not_reached_is_something_to_do(
        self, tmp_path: Path, cluster: FakeCluster
    ) -> None:
        """Of the first seed top-1 is behind top-2, of the second it was faster."""
        runs = runs_of(tmp_path, ("sst2",))
        finish(runs[0], loss=0.25)
        finish(runs[1], runs[2])
        finish(runs[3], loss=0.1)
        assert [run.variant for run in runs] == ["top-2", "top-1"] * 2
        assert len(submit(jobs_of(runs, cluster, "schemes"))) == 1

    def test_what_is_over_is_removed_and_what_is_not_ours_stays(
        self, tmp_path: Path, cluster: FakeCluster
    ) -> None:
        ours, others = runs_of(tmp_path, ("sst2",)), runs_of(tmp_path, ("soda",))
        submit(jobs_of(others, cluster))
        submit(jobs_of(ours, cluster))
        foreign = tmp_path / "mini" / "jobs" / "of-slurm"
        foreign.mkdir()
        record = Submission(launcher="slurm", host="node1", jobs=["7_0"], runs=[ours[0].config.run_id])
        write_json(foreign / "submission.json", record.to_json())
        assert jobs_of(ours, cluster).states() == {"3": "RUNNING", "4": "RUNNING"}
        del cluster.now["3"], cluster.now["4"]
        assert jobs_of(ours, cluster).states() == {}
        assert folders(tmp_path) == ["gates-1", "of-slurm"]

    def test_processes_of_another_machine_are_not_judged(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """Their numbers mean nothing here, so nothing of them is removed."""
        runs = runs_of(tmp_path)
        folder = tmp_path / "mini" / "jobs" / "gates-1"
        folder.mkdir(parents=True)
        ids = [run.config.run_id for run in runs]
        record = Submission(launcher="processes", host="node1", jobs=["7"], runs=ids)
        write_json(folder / "submission.json", record.to_json())
        jobs = jobs_of(runs, cluster)
        assert jobs.states() == {}
        assert len(submit(jobs)) == 4
        assert folders(tmp_path) == ["gates-1", "gates-2"]

    def test_jobs_of_another_user_are_not_judged(
        self, tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The scheduler does not list them, so they would look as if they were over."""
        runs = runs_of(tmp_path)
        submit(jobs_of(runs, cluster))
        cluster.now.clear()
        monkeypatch.setattr("repro.study.jobs.os", SimpleNamespace(getuid=lambda: os.getuid() + 1))
        jobs_of(runs, cluster)
        assert folders(tmp_path) == ["gates-1"]

    def test_another_study_does_only_what_it_shares(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """Its jobs count for the tasks and seeds that they do in whole."""
        more, ours = runs_of(tmp_path, seeds=3), runs_of(tmp_path)
        submit(jobs_of(more, cluster))
        assert submit(jobs_of(ours, cluster)) == []
        rows = planned(tmp_path, ("sst2", "soda"), seeds=2, only=("dense", "top-2"))
        assert len(submit(jobs_of(rows, cluster))) == 4

    def test_two_commands_at_the_same_time(
        self, tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other one makes its folder between a look and the making."""
        make: Callable[..., None] = Path.mkdir

        def other_is_faster(path: Path, *args: Any, **options: Any) -> None:
            make(path, *args, **options)
            if path.name == "gates-1":
                raise FileExistsError(path)

        monkeypatch.setattr(Path, "mkdir", other_is_faster)
        assert len(submit(jobs_of(runs_of(tmp_path), cluster))) == 4
        assert folders(tmp_path) == ["gates-1", "gates-2"]

    def test_another_command_removes_a_record_that_is_being_read(
        self, tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = runs_of(tmp_path)
        submit(jobs_of(runs, cluster))

        def removed(record: Path) -> Submission:
            shutil.rmtree(record.parent)
            raise UserError(f"{record}: cannot be read")

        monkeypatch.setattr(Submission, "read", removed)
        assert jobs_of(runs, cluster).states() == {}

    def test_ctrl_c_before_all_is_written_down(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """Jobs that nobody knows of would be submitted again."""
        runs, record = runs_of(tmp_path), tmp_path / "mini" / "jobs" / "gates-1" / "submission.json"
        came: list[bool] = []

        def work(failures: Failures) -> Callable[[], object]:
            os.kill(os.getpid(), signal.SIGINT)
            return lambda: None

        before = signal.signal(signal.SIGINT, lambda number, frame: came.append(record.exists()))
        try:
            assert len(jobs_of(runs, cluster).submit(work, JobSettings(), 1)) == 4
            assert came == []
            os.kill(os.getpid(), signal.SIGINT)
            assert came == [True]
        finally:
            signal.signal(signal.SIGINT, before)

    def test_a_refusal_leaves_nothing(self, tmp_path: Path, cluster: FakeCluster) -> None:
        cluster.refusal = "--launcher slurm: invalid partition"
        assert problems(submit, jobs_of(runs_of(tmp_path), cluster)) == [cluster.refusal]
        assert not (tmp_path / "mini" / "jobs").exists()

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, cluster: FakeCluster) -> None:
        jobs = jobs_of(runs_of(tmp_path), cluster)
        (tmp_path / "mini").write_text("")
        (line,) = problems(submit, jobs)
        assert line.startswith(f"{tmp_path / 'mini' / 'jobs'}: cannot be written (")

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("{", "cannot be read"),
            ('{"launcher": "pbs", "host": "node1", "jobs": ["1"], "runs": []}', "launcher: "),
            ('{"launcher": "slurm", "host": "node1", "jobs": [], "runs": []}', "jobs: "),
            ('{"launcher": "slurm", "host": "node1", "jobs": ["../1"], "runs": []}', "jobs.0: "),
            ('{"launcher": "slurm", "host": "node1", "jobs": ["1"], "runs": ["a/b"]}', "runs.0: "),
        ],
    )
    def test_a_damaged_record(self, tmp_path: Path, cluster: FakeCluster, content: str, problem: str) -> None:
        record = tmp_path / "mini" / "jobs" / "gates-1" / "submission.json"
        record.parent.mkdir(parents=True)
        record.write_text(content, encoding="utf-8")
        (line,) = problems(jobs_of, runs_of(tmp_path), cluster)
        assert line.startswith(f"{record}: {problem}")
        assert line.endswith("; delete its folder when its jobs are over")


class TestWaiting:
    def test_until_all_are_over(self, tmp_path: Path, cluster: FakeCluster) -> None:
        runs = runs_of(tmp_path, ("sst2",), 1)
        jobs, told = jobs_of(runs, cluster), Told()
        (job,) = submit(jobs)
        cluster.follow(lambda: None, lambda: finish(runs[1]), lambda: finish(runs[0]))
        assert jobs.wait(told) == {}
        assert told.seen == [{job: "RUNNING"}] * 3 + [{}]
        assert told.outcomes == [("sst2 top-1 0", "finished"), ("sst2 top-2 0", "finished")]
        assert not (tmp_path / "mini" / "jobs").exists()

    def test_what_failed_in_a_job(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """It is told once, and the folder with what jobs printed stays."""
        runs = runs_of(tmp_path, ("sst2",), 1)
        jobs, told = jobs_of(runs, cluster), Told()
        shared: list[Failures] = []
        submit(jobs, shared=shared)
        shared[0].add(runs[0].config.run_id, "no memory")
        finish(runs[1])
        cluster.follow(lambda: None, lambda: None)
        assert jobs.wait(told) == {runs[0].config.run_id: "no memory"}
        assert told.outcomes == [("sst2 top-2 0", "no memory")]
        assert folders(tmp_path) == ["gates-1"]
        # The next command tries again, with jobs that have not heard of it.
        assert len(submit(jobs_of(runs, cluster))) == 1
        assert not (tmp_path / "mini" / "jobs" / "gates-1" / "failed").exists()

    def test_a_job_that_left_its_runs(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """Killed without a word, or ended by an error, which its output tells."""
        runs = runs_of(tmp_path, ("sst2",), 1)
        finish(runs[1])
        jobs = jobs_of(runs, cluster)
        submit(jobs)
        cluster.now.clear()
        folder = tmp_path / "mini" / "jobs" / "gates-1"
        where = f"; what jobs printed is in {folder}"
        assert jobs.wait(Told()) == {runs[0].config.run_id: f"no job finished it{where}"}
        trace = "Traceback (most recent call last):\n  File ...\nOSError: no space left\n"
        (folder / "1_0_log.err").write_text(trace, encoding="utf-8")
        (folder / "2_0_log.err").write_text("sst2 top-1 seed 0 begins\n", encoding="utf-8")
        reason = f"no job finished it (OSError: no space left){where}"
        assert jobs.wait(Told()) == {runs[0].config.run_id: reason}

    def test_jobs_that_would_find_nothing_are_taken_out_of_the_queue(
        self, tmp_path: Path, cluster: FakeCluster
    ) -> None:
        """Once all runs are done, or have failed; those that run end by themselves."""
        runs = runs_of(tmp_path)
        jobs = jobs_of(runs, cluster)
        shared: list[Failures] = []
        submit(jobs, shared=shared)
        cluster.now |= {"3": QUEUED, "4": QUEUED}
        seen: list[list[str]] = []

        def meanwhile() -> None:
            seen.append(list(cluster.cancelled))
            if len(seen) == 2:
                finish(*runs[:-1])
            if len(seen) == 4:
                shared[0].add(runs[-1].config.run_id, "no memory")
            if len(seen) == 6:
                cluster.now.clear()

        cluster.meanwhile = meanwhile
        assert jobs.wait(Told()) == {runs[-1].config.run_id: "no memory"}
        assert seen == [[], [], [], [], ["3", "4"], ["3", "4"]]

    def test_jobs_that_do_other_runs_too_are_left_alone(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """They are waited for as long as runs of this command are missing, and stay in the queue."""
        more, ours = runs_of(tmp_path, seeds=3), runs_of(tmp_path)
        submit(jobs_of(more, cluster))
        cluster.now["3"] = QUEUED
        jobs, told = jobs_of(ours, cluster), Told()
        finish(*ours[1:])
        cluster.follow(lambda: None, lambda: finish(ours[0]))
        assert jobs.wait(told) == {}
        assert told.outcomes == [("sst2 top-2 0", "finished")]
        assert len(told.seen[-1]) == 6
        assert cluster.cancelled == []
        assert folders(tmp_path) == ["gates-1"]

    def test_a_job_may_be_missing_from_one_list(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """As when it is queued again at that moment; and a result may be seen a little later."""
        runs = runs_of(tmp_path, ("sst2",), 1)
        jobs, told = jobs_of(runs, cluster), Told()
        (job,) = submit(jobs)

        def back() -> None:
            finish(runs[0])
            cluster.now[job] = "RUNNING"

        cluster.follow(cluster.now.clear, back, cluster.now.clear, lambda: finish(runs[1]))
        assert jobs.wait(told) == {}
        assert told.seen == [{}, {job: "RUNNING"}, {}, {}]

    def test_another_command_has_removed_the_folder(self, tmp_path: Path, cluster: FakeCluster) -> None:
        """It waited for the same jobs, and all runs were done."""
        runs = runs_of(tmp_path)
        submit(jobs_of(runs, cluster))
        jobs = jobs_of(runs, cluster)
        finish(*runs)
        cluster.now.clear()
        shutil.rmtree(tmp_path / "mini" / "jobs")
        assert jobs.wait(Told()) == {}


def test_a_failure_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "failed").write_text("")
    (line,) = problems(Failures(tmp_path / "failed").add, "sst2-top-1-s0-00000000", "no memory")
    assert line.startswith(f"{tmp_path / 'failed' / 'sst2-top-1-s0-00000000.json'}: cannot be written (")
