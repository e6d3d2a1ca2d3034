"""Two processes train like one: same losses, same totals (gloo, on the CPU)."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import CommandLine, Settings

from repro.results.records import StepRecord
from repro.results.run import RunResult, read_result

TINY: dict[str, Settings] = {
    "sst2": {
        "training.steps": 6,
        "training.batch_size": 16,
        "data.train_samples": 62,
        "data.validation_samples": 30,
        "evaluation.points": 2,
        "model.config.hidden_dropout_prob": 0,
        "model.config.attention_probs_dropout_prob": 0,
    },
    # Targets of different length: the two have different numbers of terms in every step.
    "wmt19": {
        "training.batch_tokens": None,
        "training.batch_size": 8,
        "data.train_samples": 20,
        "data.validation_samples": 7,
        "model.config.dropout": 0,
    },
}
# The second epoch is ordered by what the gate did with each sample in the first, on either process.
ORDERED: Settings = {"training.curriculum": "cosine"}
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "repro"]


def read(out: Path) -> tuple[RunResult, list[float]]:
    """The result of the one run, and the loss of each of its steps."""
    (path,) = out.glob("mini/runs/*/result.json")
    steps = (path.parent / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return read_result(path), [StepRecord.parse(line, path).loss for line in steps]


def start(*command: object) -> subprocess.Popen[str]:
    """Start a launch, in a group of its own."""
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what stands on stderr; nobody stays behind."""
    try:
        _, err = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, err


def assert_equal(two: RunResult, one: RunResult) -> None:
    curves = [[point.eval_loss for point in run.curve] for run in (two, one)]
    assert curves[0] == pytest.approx(curves[1], abs=2e-6)
    assert two.eval_loss == pytest.approx(one.eval_loss, abs=2e-6)
    assert (two.tokens, two.epochs, two.run_id) == (one.tokens, one.epochs, one.run_id)
    assert two.samples_per_step == one.samples_per_step
    assert (two.samples_left_out, two.parameters) == (0, one.parameters)
    assert one.routing_eval is not None
    assert two.routing_eval is not None
    assert two.routing_eval.share_by_count == pytest.approx(one.routing_eval.share_by_count)
    assert two.metrics == pytest.approx(one.metrics)
    assert two.metric.count == one.metric.count


@pytest.mark.parametrize("task", sorted(TINY))
def test_two_processes_equal_one(cli: CommandLine, tmp_path: Path, task: str) -> None:
    """Experts are spread over both."""
    settings = {**TINY[task], **ORDERED}
    answer = cli.train("adaptive", tmp_path / "one", task=task, settings=settings)
    assert answer.status == 0, answer.err
    arguments = cli.train_arguments("adaptive", tmp_path / "two", task=task, settings=settings)
    status, err = finished(start(*LAUNCHER, *arguments))
    assert status == 0, err
    (one, one_losses), (two, two_losses) = read(tmp_path / "one"), read(tmp_path / "two")
    assert (one.environment.processes, two.environment.processes) == (1, 2)
    assert len(one_losses) > one.steps / one.epochs
    assert one.curriculum is not None
    assert two.curriculum is not None
    # The cooldown starts from a checkpoint within an epoch, which holds what both processes kept of it.
    assert two.curriculum.to_json() == pytest.approx(one.curriculum.to_json())
    assert two_losses == pytest.approx(one_losses, abs=2e-6)
    assert_equal(two, one)
    # The model is one, which any process loads.
    (run,) = (tmp_path / "two").glob("mini/runs/*")
    again = cli("eval", run, "--json")
    assert again.status == 0, again.err
    assert again.json()["eval_loss"] == pytest.approx(one.eval_loss, abs=2e-6)


def test_a_process_that_is_killed(cli: CommandLine, tmp_path: Path) -> None:
    """The launch ends with one line of ours; the same command, or one process, goes on."""
    settings = {**TINY["sst2"], "training.checkpoint_every": 1, "training.curriculum": "random"}
    settings |= {"training.steps": 40}
    arguments = cli.train_arguments("adaptive", tmp_path, settings=settings)
    launch = start(*LAUNCHER, *arguments)
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("mini/runs/*/checkpoint/step-3/manifest.json")):
        assert time.monotonic() < deadline
        assert launch.poll() is None
        time.sleep(0.02)
    (second,) = [process for process in ranks(launch.pid) if ranks(launch.pid)[process] == "1"]
    os.kill(second, signal.SIGKILL)
    status, err = finished(launch)
    assert status != 0
    ours = [line for line in err.splitlines() if line.startswith("repro: ")]
    assert len([line for line in ours if "another process of this launch has ended" in line]) <= 1
    alone = cli.train("adaptive", tmp_path, settings=settings)
    assert alone.status == 0, alone.err
    whole = cli.train("adaptive", tmp_path / "whole", settings=settings)
    assert whole.status == 0, whole.err
    assert_equal(read(tmp_path)[0], read(tmp_path / "whole")[0])


def ranks(parent: int) -> dict[int, str]:
    """Process of a launch -> its rank."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        try:
            own = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_text().split("\0")
        except (OSError, ValueError):
            continue
        if own == parent:
            found |= {
                int(entry.name): variable.partition("=")[2]
                for variable in variables
                if variable.startswith("RANK=")
            }
    return found
