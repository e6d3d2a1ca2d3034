"""Two processes train like one: same losses, same totals (gloo, on the CPU)."""

import os
import subprocess
import sys
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
# Each process balances its own tokens, so the auxiliary loss is left out of the comparison. The second epoch
# is ordered by what the gate did with each sample in the first, on either process.
ALONE: Settings = {"gate.balance": 0, "training.curriculum": "cosine"}


def read(out: Path) -> tuple[RunResult, list[float]]:
    """The result of the one run, and the loss of each of its steps."""
    (path,) = out.glob("mini/runs/*/result.json")
    steps = (path.parent / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return read_result(path), [StepRecord.parse(line, path).loss for line in steps]


@pytest.mark.parametrize("task", sorted(TINY))
def test_two_processes_equal_one(cli: CommandLine, tmp_path: Path, task: str) -> None:
    settings = {**TINY[task], **ALONE}
    answer = cli.train("adaptive", tmp_path / "one", task=task, settings=settings)
    assert answer.status == 0, answer.err
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "repro"]
    done = subprocess.run(
        [*launcher, *cli.train_arguments("adaptive", tmp_path / "two", task=task, settings=settings)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (one, one_losses), (two, two_losses) = read(tmp_path / "one"), read(tmp_path / "two")
    assert (one.environment.processes, two.environment.processes) == (1, 2)
    assert len(one_losses) > one.steps / one.epochs
    assert one.curriculum is not None
    assert two.curriculum is not None
    # The cooldown starts from a checkpoint within an epoch, which holds what both processes kept of it.
    assert two.curriculum.to_json() == pytest.approx(one.curriculum.to_json())
    assert two_losses == pytest.approx(one_losses, abs=2e-6)
    curves = [[point.eval_loss for point in run.curve] for run in (two, one)]
    assert curves[0] == pytest.approx(curves[1], abs=2e-6)
    assert two.eval_loss == pytest.approx(one.eval_loss, abs=2e-6)
    assert (two.tokens, two.epochs) == (one.tokens, one.epochs)
    assert one.routing_eval is not None
    assert two.routing_eval is not None
    assert two.routing_eval.share_by_count == pytest.approx(one.routing_eval.share_by_count)
    assert two.metrics == pytest.approx(one.metrics)
    assert two.metric.count == one.metric.count == settings["data.validation_samples"]
