"""A trained MoE model goes on with another gate: what is taken over, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from command_line import Answer, CommandLine, Settings, TrainedRuns, without_model
from resolved import resolved
from safetensors.torch import load_file

from repro.moe import pretrained


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "model" / "model.safetensors")
    return tensors


def go_on(
    cli: CommandLine, trained: TrainedRuns, gate: str, out: Path, settings: Settings | None = None
) -> Answer:
    """One step from the small top-2 run, at a learning rate that moves nothing one can see."""
    still = {"training.steps": 1, "training.learning_rate": 1e-12}
    model = trained("top-2").folder / "model"
    settings = without_model() | still | dict(settings or {})
    return cli.train(gate, out, "--model", model, "--json", settings=settings)


def test_what_is_saved_is_known_as_converted(trained: TrainedRuns, bert_folder: Path, tmp_path: Path) -> None:
    assert pretrained.is_converted(trained("top-2").folder / "model")
    assert not pretrained.is_converted(trained("dense").folder / "model")
    assert not pretrained.is_converted(bert_folder)
    assert not pretrained.is_converted(tmp_path)
    assert not pretrained.is_converted(None)


def test_the_same_gate_starts_where_the_run_ended(
    cli: CommandLine, trained: TrainedRuns, tmp_path: Path
) -> None:
    before = trained("top-2")
    answer = go_on(cli, trained, "top-2", tmp_path)
    result = answer.json()
    assert result["eval_loss"] == pytest.approx(before.result["eval_loss"], rel=1e-4)
    assert result["metric"] == before.result["metric"]
    assert result["config"]["model"]["checkpoint"].startswith(f"dir:{before.folder.name}:")


def test_null_experts_get_rows_behind_those_of_the_router(
    cli: CommandLine, trained: TrainedRuns, tmp_path: Path
) -> None:
    result = go_on(cli, trained, "adamoe", tmp_path, {"gate.nulls": 3, "gate.k": 2}).json()
    (folder,) = (tmp_path / "mini" / "runs").iterdir()
    old, new = weights(trained("top-2").folder), weights(folder)
    routers = [key for key in old if ".gate." in key]
    assert routers
    for key in routers:
        assert len(new[key]) == len(old[key]) + 3
        torch.testing.assert_close(new[key][: len(old[key])], old[key], rtol=0, atol=1e-6)
        torch.testing.assert_close(new[key][len(old[key]) :], old[key][:3], rtol=0, atol=1e-6)
    for key in set(old) - set(routers):
        torch.testing.assert_close(new[key], old[key], rtol=0, atol=1e-6, msg=key)
    assert json.loads((folder / "model" / "config.json").read_text())["repro_moe"]["gate"] == "adamoe"
    # A true expert goes before its copy, which takes the second place of three of the four.
    none, one, two = result["routing"]["share_by_count"]
    assert none == 0
    assert one > 0
    assert two > 0


def test_a_null_expert_for_each_true_one_starts_as_top_2(
    cli: CommandLine, trained: TrainedRuns, tmp_path: Path
) -> None:
    same: dict[str, object] = {"gate.combine": "renormalised"}
    result = go_on(cli, trained, "adamoe", tmp_path, {"gate.nulls": 4, "gate.k": 3} | same).json()
    plain = go_on(cli, trained, "top-2", tmp_path, same).json()
    assert result["routing"]["mean_experts"] == 2
    assert result["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-5)


def test_a_number_of_another_gate_is_not_its_rows(
    cli: CommandLine, trained: TrainedRuns, tmp_path: Path
) -> None:
    first = go_on(cli, trained, "adaptive-budget", tmp_path).json()
    model = tmp_path / "mini" / "runs" / first["run_id"] / "model"
    settings = without_model() | {"training.steps": 1}
    answer = cli.train("top-any", tmp_path, "--model", model, "--json", settings=settings)
    assert answer.status == 0, answer.err
    assert answer.json()["routing"]["mean_experts"] > 0


def test_the_experts_of_a_model_replace_what_a_scale_says_of_theirs(trained: TrainedRuns) -> None:
    """At scale `paper` experts are copies, but those of a trained model are there."""
    made, _ = resolved("top-2", scale="paper", model=str(trained("top-2").folder / "model"))
    assert (made.experts.init, made.experts.scale) == ("random", "none")


def test_a_gate_without_a_router_can_follow(cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
    assert go_on(cli, trained, "hash", tmp_path).json()["routing"]["mean_experts"] == 1


@pytest.mark.parametrize(
    ("gate", "changes", "message"),
    [
        ("top-2", {"experts.count": 3}, "its experts.count is 4, the run's 3"),
        ("top-2", {"experts.init": "upcycle"}, "experts.init: has no effect on"),
        ("top-2", {"experts.scale": "fitted"}, "experts.scale: has no effect on"),
        ("top-2", {"model.config.hidden_dropout_prob": 0.5}, "model.config: has no effect on"),
        ("dense", {}, "--gate dense: has no effect on"),
    ],
)
def test_what_does_not_fit_is_refused(
    cli: CommandLine, trained: TrainedRuns, tmp_path: Path, gate: str, changes: Settings, message: str
) -> None:
    answer = go_on(cli, trained, gate, tmp_path / "out", changes)
    assert answer.status == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
