"""Two processes train like one: same losses, same totals (gloo, on the CPU)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = [
    *("--task", "sst2", "--gate", "adaptive", "--steps", "4"),
    *("--set", "data.train_samples=62", "--set", "data.validation_samples=30"),
    *("--set", "training.batch_size=16", "--set", "evaluation.every=2"),
    *("--set", "model.vocab_size=300", "--set", "experts.count=4"),
    *("--set", "model.config.hidden_size=32", "--set", "model.config.intermediate_size=64"),
    *("--set", "model.config.hidden_dropout_prob=0", "--set", "model.config.attention_probs_dropout_prob=0"),
    # Each process balances its own tokens, so the auxiliary loss is left out of the comparison.
    *("--set", "gate.balance=0"),
]


def train(out: Path, *launcher: str) -> dict[str, object]:
    command = [sys.executable, *launcher, "-m", "repro", "train", *TINY, "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (result,) = out.glob("mini/runs/*/result.json")
    steps = (result.parent / "steps.jsonl").read_text().splitlines()
    return json.loads(result.read_text()) | {"losses": [json.loads(line)["loss"] for line in steps]}


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one = train(tmp_path / "one")
    two = train(tmp_path / "two", "-m", "torch.distributed.run", "--nproc-per-node", "2")
    assert two["environment"]["processes"] == 2
    assert two["losses"] == pytest.approx(one["losses"], abs=2e-6)
    assert [point[2] for point in two["curve"]] == pytest.approx(
        [point[2] for point in one["curve"]], abs=2e-6
    )
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], abs=2e-6)
    assert two["tokens"] == one["tokens"]
    assert two["routing_eval"]["share_by_count"] == pytest.approx(one["routing_eval"]["share_by_count"])
    assert two["metric"]["count"] == one["metric"]["count"] == 30
