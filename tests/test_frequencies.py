"""How often token ids stand in the training split, and that gates are told before they are trained."""

from pathlib import Path

import pytest
import torch
from command_line import CommandLine, only_run
from tiny_models import moe_layers

from repro.moe import pretrained
from repro.run.setup import token_counts


def test_counts_by_hand() -> None:
    assert token_counts([[3, 1, 3], [], [1, 3]]).tolist() == [0, 2, 0, 3]
    assert token_counts(iter([[0]])).tolist() == [1]


@pytest.mark.parametrize("task", ["sst2", "wmt19", "arc"])
def test_a_run_has_as_many_rare_tokens_as_it_asked_for(cli: CommandLine, tmp_path: Path, task: str) -> None:
    """Each stack by itself; the saved model brings what it learned, and evaluates as it did."""
    options = {"gate.rare": 0.5, "training.curriculum": "random"}
    result = cli.train("maskmoe", tmp_path, "--json", task=task, settings=options).json()
    model = pretrained.load(only_run(tmp_path) / "model", torch.device("cpu"))
    tables = [layer.gate.state_dict()["rare_V"] for layer in moe_layers(model)]
    assert all(len(table) > 100 and 0 < int(table.sum()) < len(table) for table in tables)
    assert len({tuple(table.tolist()) for table in tables}) == (2 if task == "wmt19" else 1)
    # Rare are at most half of the tokens of the whole split, and less by those of ids that are as frequent.
    for shares in result["routing"]["share_by_count_per_layer"]:
        assert shares[0] == 0
        assert 0.15 < shares[1] < 0.65
    evaluated = cli("eval", only_run(tmp_path), "--json").json()
    assert (evaluated["eval_loss"], evaluated["metric"]) == (result["eval_loss"], result["metric"])
    assert evaluated["routing"] == result["routing_eval"]


def test_the_share_is_exact_over_the_whole_split(cli: CommandLine, tmp_path: Path) -> None:
    """One epoch of all rows: at most the share is rare, and as much of it as whole ids give."""
    options = {
        "gate.rare": 0.4,
        "training.curriculum": "random",
        "training.schedule": "linear",
        "training.steps": 4,
        "training.batch_size": 16,
        "data.train_samples": 64,
    }
    result = cli.train("maskmoe", tmp_path, "--json", settings=options).json()
    assert result["epochs"] == 1
    for shares in result["routing"]["share_by_count_per_layer"]:
        assert 0.2 < shares[1] <= 0.4
