"""`repro ablate --launcher`: jobs as processes, what Slurm is told (by programs in its place), bad input."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import SMALL, Answer, CommandLine, Settings, read_lines, read_object
from in_process import do_in_process
from planned import planned
from refusals import refused

from repro.cli import cluster
from repro.cli.cluster import Share, Working
from repro.errors import Interrupted
from repro.run.execute import execute
from repro.run.scales import experiments_folder
from repro.study.failures import Failures
from repro.study.scheduler import Slurm, load_submitit

TWO_TASKS: dict[str, object] = {
    "training.steps": 8,
    "training.batch_size": 8,
    "data.train_samples": 32,
    "data.dev_samples": 8,
    "data.validation_samples": 8,
    "data.max_length": 32,
    "model.vocab_size": 300,
    "experts.count": 2,
    "evaluation.points": 2,
    "evaluation.batch_size": 16,
}
"""Of BERT as of GPT-2, at the width of `mini`."""


def command(out: Path, *options: object, tasks: str = "sst2", settings: Settings | None = None) -> list[str]:
    """Top-2 and top-1."""
    study = ["ablate", "schemes", "--tasks", tasks, "--variants", "top-2,top-1", "--out", str(out)]
    chosen = SMALL if settings is None else settings
    return [*study, *map(str, options), *(f"--set={key}={value}" for key, value in chosen.items())]


def said(answer: Answer) -> list[str]:
    """Lines on stderr; that small runs of adaptive gates are in random order is left out."""
    return [line for line in answer.err.splitlines() if ": data in random order, as " not in line]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm is asked again at once."""
    monkeypatch.setattr(Slurm, "poll_seconds", 0.0)


# --- jobs as processes ----------------------------------------------------------------------------

COLUMNS = (
    *("Task", "Scheme", "Inference Performance", "Final loss", "Target loss", "Steps to target", "Reached"),
    *("Norm. FLOPs", "Runs", "Reason for empty cells"),
)
"""Of `table3_detail.csv`: all that does not depend on times."""


def table(out: Path) -> list[list[str]]:
    with (out / "mini" / "table3_detail.csv").open(newline="", encoding="utf-8") as stream:
        return [[row[column].replace(str(out), "") for column in COLUMNS] for row in csv.DictReader(stream)]


def spoil(out: Path) -> str:
    """Put another run into the folder of one of the runs, which then fails; return its id."""
    run = planned(out, ("wikitext",), seeds=2, only=("top-1",), settings=TWO_TASKS)[-1]
    run.folder.path.mkdir(parents=True)
    run.folder.config.write_text("{}", encoding="utf-8")
    return run.config.run_id


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_the_same_tables_through_kills_and_stops(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight runs by three jobs: one is killed, one run fails, the command is stopped and given again."""
    alone, out = tmp_path / "alone", tmp_path / "jobs"

    def study(out: Path, *options: object) -> list[str]:
        return command(out, "--seeds", 2, "--lanes", 1, *options, tasks="wikitext,sst2", settings=TWO_TASKS)

    failing = spoil(alone)
    with monkeypatch.context() as patch:
        do_in_process(patch, execute)
        reference = cli(*study(alone))
    assert reference.status == 1
    assert spoil(out) == failing

    def kill_one_and_stop(seconds: float) -> None:
        """As soon as something was learned, in place of waiting."""
        for lease in (out / "mini" / "runs").glob(".*.lease"):
            task, seed = lease.name.removeprefix(".").removesuffix(".lease").split("-")
            if any(read_lines(steps) for steps in lease.parent.glob(f"{task}-*-{seed}-*/steps.jsonl")):
                os.kill(read_object(lease)["process"], signal.SIGKILL)
                raise KeyboardInterrupt
        time.sleep(0.02)

    in_jobs = study(out, "--launcher", "processes", "--jobs", 3)
    with monkeypatch.context() as patch:
        patch.setattr("repro.study.jobs.time", SimpleNamespace(sleep=kill_one_and_stop))
        stopped = cli(*in_jobs)
    assert (stopped.status, stopped.out) == (130, "")
    first, *_, last = said(stopped)
    assert first == "8 runs, 0 of them finished before"
    assert last.startswith("repro: stopped waiting, ")
    assert last.endswith(" jobs go on; the same command continues")
    (record,) = out.glob("mini/jobs/schemes-1/submission.json")
    assert len(read_object(record)["jobs"]) == 3

    monkeypatch.setattr("repro.study.scheduler.Scheduler.poll_seconds", 0.1)
    answer = cli(*in_jobs)
    assert answer.status == 1
    assert "Traceback" not in answer.err
    assert "jobs of an earlier command: " in answer.err
    reason = reference.err.splitlines()[-1].replace(str(alone), str(out))
    assert reason.startswith(f"repro: {failing} failed: UserError: ")
    assert answer.err.splitlines()[-1] == reason
    assert table(out) == table(alone)
    assert list(read_object(out / "mini" / "studies" / "schemes.json")["failed"]) == [failing]
    assert len(list(out.glob("mini/runs/*/result.json"))) == 7
    assert list((out / "mini" / "runs").rglob("*.lease")) == []


# --- what Slurm is told ---------------------------------------------------------------------------

PROGRAMS = {
    "srun": "exit 1",
    "sbatch": """
cp "$1" "$SLURM_SEEN/job.sh"
if grep -q "^#SBATCH --partition=" "$1" && ! grep -q "^#SBATCH --partition=gpu$" "$1"; then
    echo "sbatch: error: invalid partition specified: nope" >&2
    echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
    exit 1
fi
echo "Submitted batch job 4242"
""",
    # The first line of a list is told, and forgotten.
    "squeue": """
echo "$@" >> "$SLURM_SEEN/squeue"
next=$(head -n 1 "$SLURM_SEEN/states")
sed -i 1d "$SLURM_SEEN/states"
case "$next" in
    down) echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1;;
    *) echo "$next" | tr "," "\\n";;
esac
""",
    "scancel": 'echo "$@" >> "$SLURM_SEEN/scancel"',
    "scontrol": 'echo "$@" >> "$SLURM_SEEN/scontrol"',
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: None) -> Path:
    """Programs in place of Slurm's, and a folder with what they saw."""
    programs, seen = tmp_path / "bin", tmp_path / "seen"
    programs.mkdir()
    seen.mkdir()
    for name, lines in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_SEEN", str(seen))
    tell(seen)
    return seen


def tell(seen: Path, *states: str) -> None:
    """What `squeue` answers, one time after the other; then nothing."""
    (seen / "states").write_text("".join(f"{line}\n" for line in states), encoding="utf-8")


def asked(seen: Path) -> dict[str, str]:
    """The options of the last job."""
    lines = (seen / "job.sh").read_text(encoding="utf-8").splitlines()
    found = (line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH"))
    return {name: value for name, _, value in found}


GIVEN = ("--partition", "gpu", "--gpus", 2, "--memory", 32, "--time", 1.5)


def test_an_array_of_jobs(cli: CommandLine, tmp_path: Path, slurm: Path) -> None:
    """They end without having done anything, which the command says of every run."""
    out = tmp_path / "results"
    tell(slurm, "4242_0 RUNNING,4242_1 PENDING", "down", "4242_0 RUNNING,4242_1 RUNNING,77 RUNNING")
    answer = cli(*command(out, "--launcher", "slurm", *GIVEN, "--seeds", 3, "--jobs", 2, "--json"))
    assert (answer.status, answer.out) == (1, "")
    assert {name: asked(slurm)[name] for name in ("array", "partition", "gpus-per-node", "mem", "time")} == {
        "array": "0-1%2",
        "partition": "gpu",
        "gpus-per-node": "2",
        "mem": "32GB",
        "time": "90",
    }
    assert asked(slurm)["cpus-per-task"] == "2"
    assert asked(slurm)["job-name"] == "repro-schemes"
    assert asked(slurm)["signal"] == "USR2@180"
    assert asked(slurm)["open-mode"] == "append"
    lines = said(answer)
    assert lines[:3] == [
        "6 runs, 0 of them finished before",
        "jobs submitted: 4242_0 4242_1",
        "jobs: 1 running, 1 queued",
    ]
    assert lines[3].startswith("repro: squeue does not answer (slurm_load_jobs error: Unable to contact")
    assert lines[4] == "jobs: 2 running"
    folder = out / "mini" / "jobs" / "schemes-1"
    assert [line.partition(" failed: ")[2] for line in lines[5:]] == [
        f"no job finished it; what jobs printed is in {folder}"
    ] * 6
    assert (slurm / "squeue").read_text(encoding="utf-8").splitlines()[0] == (
        "--me --noheader --array --states=PENDING,RUNNING,SUSPENDED,CONFIGURING,COMPLETING --format=%i %T"
    )
    assert read_object(folder / "submission.json")["jobs"] == ["4242_0", "4242_1"]


def test_one_job(cli: CommandLine, tmp_path: Path, slurm: Path) -> None:
    """It is no array; what is not given is not asked for."""
    assert (
        cli(*command(tmp_path / "results", "--launcher", "slurm", "--lanes", 3, "--threads", 2)).status == 1
    )
    given = asked(slurm)
    assert (given["time"], given["cpus-per-task"]) == ("240", "6")
    assert not {"array", "partition", "gpus-per-node", "mem"} & set(given)


def test_stopped_and_given_again(
    cli: CommandLine, tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three jobs one is over; it is submitted again, and the others are waited for."""
    out = tmp_path / "results"
    study = command(out, "--launcher", "slurm", "--seeds", 3)

    def press_ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    tell(slurm, *["4242_0 RUNNING,4242_1 PENDING,4242_2 RUNNING"] * 2)
    with monkeypatch.context() as patch:
        patch.setattr("repro.study.jobs.time", SimpleNamespace(sleep=press_ctrl_c))
        answer = cli(*study)
    assert (answer.status, answer.out) == (130, "")
    assert answer.err.splitlines()[-1] == "repro: stopped waiting, 3 jobs go on; the same command continues"
    assert asked(slurm)["array"] == "0-2%3"
    assert not (slurm / "scancel").exists()

    tell(slurm, *["4242_1 PENDING,4242_2 RUNNING"] * 3)
    answer = cli(*study)
    assert answer.status == 1
    assert said(answer)[1:3] == [
        "jobs of an earlier command: 4242_1 4242_2",
        "jobs submitted: 4242",
    ]
    assert "array" not in asked(slurm)


def test_slurm_is_not_to_be_reached(tmp_path: Path, slurm: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is concluded from that: jobs stay as they were last seen."""
    scheduler = Slurm()
    tell(slurm, "4242_0 RUNNING")
    assert scheduler.states(["4242_0", "4242_1"], tmp_path) == {"4242_0": "RUNNING"}
    for name in ("squeue", "scancel"):
        (tmp_path / "bin" / name).chmod(0)
    assert scheduler.states(["4242_0"], tmp_path) == {"4242_0": "RUNNING"}
    assert "squeue does not answer" in caplog.text
    scheduler.cancel(["4242_0"])


@pytest.fixture
def handlers() -> Iterator[None]:
    """A job sets handlers of signals; they are as before when a test is over."""
    numbers = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_job_whose_time_is_up_is_queued_again(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """In this process, as submitit starts it on a node; it does the same when it is started again."""
    load_submitit()
    from submitit.core.submission import process_job
    from submitit.helpers import DelayedSubmission

    runs = planned(tmp_path / "results", settings=SMALL)
    working = Working(lanes=1, threads=1, turns=10, at_once=None)
    share = Share(
        plans={"schemes": runs}, working=working, memory=1e9, failures=Failures(tmp_path / "failed")
    )
    seen: list[dict[str, Any]] = []

    def until_the_time_is_up(*given: Any) -> dict[str, str]:
        plans, _, memory, _, should_stop, _ = given
        seen.append({"plans": plans, "available": memory.available, "stop": should_stop()})
        os.kill(os.getpid(), signal.SIGUSR2)
        assert should_stop()
        raise Interrupted("stopped, 4 runs saved")

    monkeypatch.setattr(cluster, "execute", until_the_time_is_up)
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    waiting = DelayedSubmission(share)
    waiting.set_timeout(240, 1000)
    waiting.dump(tmp_path / "4242_submitted.pkl")
    for _ in range(2):
        with pytest.raises(SystemExit):
            process_job(tmp_path)
    assert (slurm / "scontrol").read_text(encoding="utf-8") == "requeue 4242\n" * 2
    assert seen == [{"plans": {"schemes": runs}, "available": 1e9, "stop": False}] * 2
    assert not (tmp_path / "4242_0_result.pkl").exists()


# --- bad input ------------------------------------------------------------------------------------


def test_a_partition_that_does_not_exist(cli: CommandLine, tmp_path: Path, slurm: Path) -> None:
    answer = cli(*command(tmp_path / "results", "--launcher", "slurm", "--partition", "nope"))
    assert (answer.status, answer.out) == (2, "")
    assert said(answer) == [
        "2 runs, 0 of them finished before",
        "repro: --launcher slurm: sbatch: error: invalid partition specified: nope"
        " sbatch: error: Batch job submission failed: Invalid partition name specified",
    ]
    assert not (tmp_path / "results" / "mini" / "jobs").exists()


def test_a_machine_without_slurm(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = SimpleNamespace(which=lambda name: None if name == "sbatch" else f"/usr/bin/{name}")
    monkeypatch.setattr("repro.study.scheduler.shutil", which)
    refused(
        cli(*command(tmp_path, "--launcher", "slurm")),
        r"--launcher slurm: no sbatch here; give the command where jobs are submitted$",
    )


def test_submitit_leaves_logging_alone() -> None:
    """In a process of its own, as it does what it does when it is imported."""
    program = """
import logging, os
closed = []
class Handler(logging.StreamHandler):
    def close(self):
        closed.append(self)
handler = Handler()
from repro.study.scheduler import load_submitit
assert load_submitit().__name__ == "submitit"
assert not closed and "SUBMITIT_LOG_LEVEL" not in os.environ
os._exit(0)
"""
    environment = {name: value for name, value in os.environ.items() if name != "SUBMITIT_LOG_LEVEL"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_not_installed(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr("repro.study.scheduler.importlib", without)
    refused(
        cli(*command(tmp_path, "--launcher", "processes")),
        r"--launcher processes: submitit is not installed; pip install 'repro\[cluster\]'$",
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--launcher", "slrum"], r"--launcher: unknown launcher 'slrum'. Did you mean 'slurm'\?"),
        (
            ["--jobs", 3, "--gpus", 0],
            r"--jobs, --gpus: no effect with --launcher local; give --launcher slurm",
        ),
        (
            ["--launcher", "processes", "--partition", "gpu"],
            r"--partition: no effect with --launcher processes; give --launcher slurm",
        ),
        (["--launcher", "processes", "--jobs", 0], r"Invalid value for '--jobs'"),
        (["--launcher", "processes", "--gpus", -1], r"Invalid value for '--gpus'"),
        (["--launcher", "processes", "--memory", 0], r"Invalid value for '--memory'"),
        (["--launcher", "processes", "--time", "soon"], r"Invalid value for '--time'"),
        (["--launcher", "processes", "--time", "nan"], r"Invalid value for '--time'"),
    ],
)
def test_options(cli: CommandLine, tmp_path: Path, options: list[object], problem: str) -> None:
    refused(cli(*command(tmp_path / "results", *options)), problem)
    assert not (tmp_path / "results").exists()


def test_a_partition_is_a_word(cli: CommandLine, tmp_path: Path, slurm: Path) -> None:
    for name in ("", "a b", "gpu\n#SBATCH --array=0-99"):
        refused(cli(*command(tmp_path, "--launcher", "slurm", "--partition", name)), r"--partition: ")


def test_a_folder_that_schedulers_would_misread(cli: CommandLine, tmp_path: Path, slurm: Path) -> None:
    answer = cli(*command(tmp_path / "100%j", "--launcher", "slurm"))
    assert answer.status == 2
    assert answer.err.splitlines()[-1].endswith(": a scheduler takes % for its own; give a folder without")
    assert not (slurm / "job.sh").exists()


class TestScaleFile:
    @pytest.fixture
    def scale(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        shutil.copytree(experiments_folder(), tmp_path / "experiments")
        monkeypatch.setattr("repro.run.scales.experiments_folder", lambda: tmp_path / "experiments")
        return tmp_path / "experiments" / "mini.toml"

    def test_what_it_says_holds_unless_the_user_says_otherwise(
        self, cli: CommandLine, tmp_path: Path, slurm: Path, scale: Path
    ) -> None:
        with scale.open("a", encoding="utf-8") as stream:
            stream.write('\n[base.launcher]\npartition = "gpu"\ntime = 2\nmemory = 1.5\njobs = 1\n')
        assert cli(*command(tmp_path, "--launcher", "slurm", "--seeds", 3, "--time", 3)).status == 1
        given = asked(slurm)
        assert (given["partition"], given["time"], given["mem"]) == ("gpu", "180", "1536MB")
        assert "array" not in given

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("partitoin = 'gpu'", r"launcher: unknown option 'partitoin'. Did you mean 'partition'\?"),
            ("gpus = 1.5", r"launcher\.gpus: "),
            ("memory = '64G'", r"launcher\.memory: "),
            ("time = 0", r"launcher\.time: "),
            ("jobs = 0", r"launcher\.jobs: "),
        ],
    )
    def test_what_is_wrong_with_it(
        self, cli: CommandLine, tmp_path: Path, scale: Path, line: str, problem: str
    ) -> None:
        with scale.open("a", encoding="utf-8") as stream:
            stream.write(f"\n[base.launcher]\n{line}\n")
        refused(cli(*command(tmp_path / "results")), r"experiments/mini\.toml: base\." + problem)


def test_cpus_of_a_job() -> None:
    def cpus(lanes: int | None, threads: int | None, gpus: int) -> int:
        return Working(lanes=lanes, threads=threads, turns=10, at_once=None).cpus(gpus)

    assert cpus(None, None, 0) == 1
    assert cpus(None, 4, 0) == 4
    assert cpus(None, 4, 2) == 8
    assert cpus(3, 2, 8) == 6
