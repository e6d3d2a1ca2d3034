"""Gates in front of an MoE model without training: `eval --gate`, `ablate threshold --no-train`."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import write_relative
from command_line import Answer, CommandLine, only_run, without_model
from refusals import refused
from tiny_models import CPU, Tiny, moe_layers

from repro.results.thinning import Thinning
from repro.run.thin import sharing_copy

FEW = ("--set", "data.validation_samples=12", "--set", "data.max_length=48")
MIXTRAL = Tiny("mixtral", "causal-language-model")


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mixtral of 4 experts, 2 a token; its routers are not trained, so gaps are small."""
    folder = tmp_path_factory.mktemp("pretrained") / "tiny-mixtral"
    return write_relative(folder, "mixtral", num_local_experts=4, num_experts_per_tok=2)


@pytest.fixture(scope="module")
def trained_mixtral(cli: CommandLine, mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run: a tiny Mixtral trained on with its own top-2."""
    out = tmp_path_factory.mktemp("trained-mixtral")
    settings = {**without_model("arc"), "model.backbone": "mixtral", "experts.count": None}
    answer = cli.train("top-2", out, "--model", mixtral, task="arc", settings=settings)
    assert answer.status == 0, answer.err
    return only_run(out) / "model"


def evaluated(cli: CommandLine, model: Path, *options: object) -> dict[str, Any]:
    return cli("eval", model, "--task", "arc", "--json", *FEW, *options).json()


def test_a_model_beside_its_own_top_k(cli: CommandLine, mixtral: Path) -> None:
    answer = cli("eval", mixtral, "--gate", "adaptive", "--threshold", "0.05", *FEW)
    assert answer.status == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].endswith("wikitext validation, without training")
    assert any(line.startswith("top-2 (its own)") and "2: 100.0%" in line for line in lines)
    (line,) = (line for line in lines if line.startswith("adaptive"))
    assert "1: " in line and "2: " in line


def test_one_is_the_model_itself(cli: CommandLine, mixtral: Path) -> None:
    """With T = 1 every token has two experts, with the weights that the family gives them."""
    curve = Thinning.parse(json.dumps(evaluated(cli, mixtral, "--gate", "adaptive", "--threshold", 1)), "")
    (point,) = curve.points
    assert (curve.own.gate, curve.own.threshold, point.gate, point.threshold) == (
        "top-2",
        None,
        "adaptive",
        1,
    )
    assert point.eval_loss == curve.own.eval_loss
    assert point.flops == curve.own.flops
    assert point.routing.mean_experts == curve.own.routing.mean_experts == 2
    assert (curve.task, curve.split, curve.data.count) == ("arc", "validation", 12)
    assert curve.model.startswith("dir:tiny-mixtral:")


def test_equal_experts_alone_are_top_1(cli: CommandLine, mixtral: Path) -> None:
    """By hand: 2 layers, an expert of 3 x 16 x 24 multiply-adds less for every token."""
    thin = evaluated(cli, mixtral, "--gate", "adaptive", "--threshold", 0)
    (point,) = thin["points"]
    assert point["routing"]["share_by_count"][:2] == [0.0, 1.0]
    saved = thin["own"]["flops"]["macs_per_token"] - point["flops"]["macs_per_token"]
    assert saved == pytest.approx(2 * 3 * 16 * 24)
    top_1 = evaluated(cli, mixtral, "--gate", "top-1")["points"][0]
    assert top_1["eval_loss"] == point["eval_loss"]


def test_settings_are_those_of_the_gate_alone(cli: CommandLine, mixtral: Path) -> None:
    raw = evaluated(cli, mixtral, "--gate", "top-2", "--set", "gate.combine=raw")
    assert raw["points"][0]["eval_loss"] != raw["own"]["eval_loss"]
    assert raw["own"]["eval_loss"] == evaluated(cli, mixtral, "--gate", "top-1")["own"]["eval_loss"]


def curve_of(cli: CommandLine, model: Path, out: Path, *options: object) -> Answer:
    answer = cli(
        "ablate", "threshold", "--no-train", "--model", model, "--tasks", "arc", "--out", out, *FEW, *options
    )
    assert answer.status == 0, answer.err
    return answer


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "mini" / "thinning.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_curve_of_a_pretrained_model(cli: CommandLine, mixtral: Path, tmp_path: Path) -> None:
    answer = curve_of(cli, mixtral, tmp_path)
    rows = rows_of(tmp_path)
    assert [row["Gate"] for row in rows] == ["top-2", *["adaptive"] * 8]
    experts = [float(row["Experts per token"]) for row in rows[1:]]
    assert experts == sorted(experts)
    assert experts[0] == 1
    assert float(rows[0]["FLOPs against own"]) == 1
    assert float(rows[0]["Loss - own"]) == 0
    assert "tiny-mixtral, arc: acc_norm is " in answer.out
    assert "own top-k" in (tmp_path / "mini" / "report.md").read_text(encoding="utf-8")
    # Measured again it takes the place of the first; a new task stands beside it.
    curve_of(cli, mixtral, tmp_path, "--values", "0.1,1")
    assert [row["Threshold"] for row in rows_of(tmp_path)] == ["", "0.1", "1.0"]
    curve_of(cli, mixtral, tmp_path, "--values", "0.1", "--tasks", "wikitext")
    assert [row["Task"] for row in rows_of(tmp_path)] == ["arc"] * 3 + ["wikitext"] * 2
    before = rows_of(tmp_path)
    assert cli("report", "--out", tmp_path).status == 0
    assert rows_of(tmp_path) == before


def test_a_model_of_more_than_two_experts_a_token(cli: CommandLine, tmp_path: Path) -> None:
    """Its experts are thinned one by one, from the last."""
    model = write_relative(tmp_path / "olmoe", "olmoe", num_experts=6, num_experts_per_tok=4)
    curve_of(cli, model, tmp_path, "--values", "0,0.02,1")
    rows = rows_of(tmp_path)
    assert [row["Gate"] for row in rows] == ["top-4", *["adaptive-4"] * 3]
    experts = [float(row["Experts per token"]) for row in rows[1:]]
    assert experts[0] == 1 < experts[1] < experts[2] == 4
    assert rows[0]["Loss"] == rows[3]["Loss"]


def test_a_model_that_was_trained_here(cli: CommandLine, trained_mixtral: Path, tmp_path: Path) -> None:
    curve_of(cli, trained_mixtral, tmp_path, "--values", "0,0.05,1")
    rows = rows_of(tmp_path)
    assert [row["Gate"] for row in rows] == ["top-2", *["adaptive"] * 3]
    assert rows[0]["Loss"] == rows[3]["Loss"]
    assert 1 < float(rows[2]["Experts per token"]) < 2
    assert math.isclose(float(rows[0]["Loss"]), float(rows[1]["Loss"]), rel_tol=0.1)


def test_a_copy_shares_all_weights(mixtral: Path) -> None:
    model = MIXTRAL.build()
    copied = sharing_copy(model)
    assert {id(one) for one in copied.parameters()} == {id(one) for one in model.parameters()}
    MIXTRAL.convert(copied, "top-1")
    assert moe_layers(model) == []
    experts, block = moe_layers(copied)[0].experts, model.model.layers[0].mlp.experts
    assert experts.w1.data_ptr() == block.gate_up_proj.data_ptr()
    assert torch.device(CPU) == experts.w1.device


# --- refusals -------------------------------------------------------------------------------------


def test_models_without_top_k(cli: CommandLine, bert_folder: Path, trained: Any, tmp_path: Path) -> None:
    needs = r"without training, gates can stand in a model that routes by top-k: .*mixtral, olmoe"
    refused(cli("eval", bert_folder, "--gate", "top-1"), r"tiny-bert: has no MoE layers; " + needs)
    adaptive = trained("adaptive").folder / "model"
    refused(cli("eval", adaptive, "--gate", "top-1"), "was trained with the gate 'adaptive'; " + needs)


def test_gates_that_cannot_do_without_training(cli: CommandLine, mixtral: Path) -> None:
    refused(cli("eval", mixtral, "--gate", "dense", *FEW), r"^repro: --gate dense: has no experts")
    refused(cli("eval", mixtral, "--gate", "maskmoe", *FEW), r"^repro: --gate maskmoe: needs the frequencies")
    refused(
        cli("eval", mixtral, "--gate", "adaptve", *FEW), r"unknown gate 'adaptve'\. Did you mean 'adaptive'"
    )


def test_another_number_of_experts(cli: CommandLine, mixtral: Path) -> None:
    answer = cli("eval", mixtral, "--gate", "adaptive", "--set", "experts.count=8", *FEW)
    refused(answer, r"experts\.count: 8 are not the 4 experts of the model's MoE blocks; set .*=4$")


def test_a_task_of_another_head(cli: CommandLine, mixtral: Path) -> None:
    answer = cli("eval", mixtral, "--gate", "adaptive", "--task", "sst2")
    refused(answer, r"model\.backbone: 'mixtral' has no head for the task 'sst2', whose backbone is 'bert'$")


def test_options_without_effect(cli: CommandLine, mixtral: Path, tmp_path: Path) -> None:
    refused(
        cli("eval", "a-run", "--threshold", "0.1", "--task", "arc", "--out", tmp_path),
        "--threshold: has no effect without --gate",
        "--task: has no effect without --gate",
    )
    refused(
        cli("eval", mixtral, "--gate", "adaptive", "--gate-at-inference", "top-1"),
        "--gate-at-inference: has no effect with --gate",
    )
    refused(
        cli("ablate", "schemes", "--no-train", "--seeds", "2", "--dry-run", "--out", tmp_path),
        "--seeds: has no effect with --no-train",
        "--dry-run: has no effect with --no-train",
        "--no-train: shows the study threshold alone, not schemes",
        "--no-train: give a pretrained MoE model with --model",
    )


def test_a_damaged_file_of_curves(cli: CommandLine, mixtral: Path, tmp_path: Path) -> None:
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "thinning.json").write_text("{", encoding="utf-8")
    refused(cli("report", "--out", tmp_path), r"thinning\.json: .*`repro ablate threshold --no-train` writes")
