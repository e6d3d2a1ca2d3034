"""AdaMoE's own experiment: a Mixtral on multiple choice, at `mini` and from a checkpoint as at `paper`."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkpoints import write_relative
from command_line import SMALL_BY_TASK, CommandLine, Json, read_object
from refusals import refused
from rows_by_hand import write_splits

from repro.errors import UserError
from repro.study.plan import PlannedRun, plan, task_names

FEW: dict[str, object] = {
    "training.steps": 4,
    "training.batch_size": 4,
    "training.lora_rank": 2,
    "data.max_length": 48,
    "data.train_samples": 12,
    "data.dev_samples": 6,
    "data.validation_samples": 8,
    "experts.count": 4,
    "gate.nulls": 4,
    "evaluation.points": 2,
    "evaluation.batch_size": 4,
}
TINY: dict[str, object] = {
    "model.vocab_size": 400,
    "model.config.hidden_size": 16,
    "model.config.intermediate_size": 24,
    "model.config.num_local_experts": 4,
}


def planned(scale: str, out: Path, task: str = "arc") -> list[PlannedRun]:
    return plan("adamoe", tasks=[task], seeds=1, scale=scale, data=None, overrides={}, results=out)


def test_its_task_is_beside_those_of_the_paper() -> None:
    """At `small` no model is described for it."""
    assert task_names("adamoe", "mini", [])[-1] == task_names("adamoe", "paper", [])[-1] == "arc"
    assert "arc" not in task_names("adamoe", "small", [])
    assert "arc" not in task_names("schemes", "mini", [])


def test_the_recipe_at_mini(tmp_path: Path) -> None:
    first, plain, adamoe = planned("mini", tmp_path)
    assert [run.variant for run in (first, plain, adamoe)] == ["top-2", "plain", "adamoe"]
    assert first.config.model.backbone == "mixtral"
    assert first.config.model.checkpoint is None
    assert first.config.model.options["num_local_experts"] == first.config.experts.count == 8
    assert "n_embd" not in first.config.model.options
    assert (first.config.training.lora_rank, first.config.training.epochs) == (None, 2)
    for run in (plain, adamoe):
        assert run.init_from is first
        assert (run.config.training.lora_rank, run.config.training.epochs) == (8, 2)
    options = adamoe.config.gate_options
    assert (options.k, options.nulls, options.combine, options.balance) == (3, 8, "renormalised", 0.02)
    assert options.balance * adamoe.config.training.balance_late == pytest.approx(1e-4)
    assert plain.config.training.balance_late == 1


def test_at_paper_the_checkpoint_is_the_top_2_model(tmp_path: Path) -> None:
    plain, adamoe = planned("paper", tmp_path)
    assert [run.variant for run in (plain, adamoe)] == ["plain", "adamoe"]
    for run in (plain, adamoe):
        assert run.init_from is None
        model = run.config.model
        assert (model.checkpoint, model.dtype) == ("mistralai/Mixtral-8x7B-v0.1", "bf16")
        assert run.config.experts.count == 8
        assert run.config.training.lora_rank == 8
        assert run.config.training.learning_rate == 1e-4
    assert adamoe.config.gate_options.nulls == 8


def test_other_tasks_keep_their_recipe(tmp_path: Path) -> None:
    runs = planned("mini", tmp_path, "sst2")
    for run in runs:
        assert run.config.model.backbone == "bert"
        assert run.config.training.lora_rank is None
    assert runs[-1].config.gate_options.nulls == 16
    with pytest.raises(UserError, match="unknown task"):
        task_names("adamoe", "mini", ["ark"])


def arguments(out: Path, *options: object, settings: Mapping[str, object]) -> list[object]:
    given = [f"--set={key}={value}" for key, value in settings.items()]
    return ["ablate", "adamoe", "--tasks", "arc", "--out", out, *options, *given]


def results(out: Path) -> dict[str, Json]:
    """Variant -> its result."""
    study = read_object(out / "studies" / "adamoe.json")
    return {
        variant: read_object(out / "runs" / run_id / "result.json")
        for variant, (run_id,) in study["tasks"]["arc"].items()
    }


def table(out: Path, name: str) -> list[dict[str, str]]:
    with (out / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_tiny_mixtral_from_scratch(cli: CommandLine, tmp_path: Path) -> None:
    answer = cli(*arguments(tmp_path, settings=FEW | TINY))
    assert answer.status == 0, answer.err
    made = results(tmp_path / "mini")
    assert tuple(made) == ("top-2", "plain", "adamoe")
    for variant in ("plain", "adamoe"):
        # Null experts start as copies, and additions as 0: both start where the first ended.
        assert made[variant]["curve"][0][2] == pytest.approx(made["top-2"]["dev_loss"], rel=1e-5)
    assert made["plain"]["routing"]["mean_experts"] == 2
    assert made["plain"]["curve"][-1][2] != made["adamoe"]["curve"][-1][2]
    rows = table(tmp_path / "mini", "adamoe.csv")
    assert [(row["Task"], row["Model"]) for row in rows] == [("Multiple choice", "mixtral")] * 3
    gain = 100 * (made["adamoe"]["metric"]["value"] - made["plain"]["metric"]["value"])
    assert float(rows[2]["Gain"]) == pytest.approx(gain, rel=1e-3, abs=1e-9)
    claims = {row["Claim"]: row for row in table(tmp_path / "mini", "claims.csv")}
    (saves,) = (row for claim, row in claims.items() if "Mixtral" in claim and "saves" in claim)
    assert 1 - float(saves["Ours"]) == pytest.approx(float(rows[2]["FLOPs saved"]), abs=1e-3)
    assert "* Multiple choice: the model is of the family mixtral" in answer.out


def test_a_checkpoint_as_at_paper(cli: CommandLine, tmp_path: Path) -> None:
    """A tiny Mixtral stands for Mixtral-8x7B: weights in bf16, no first training."""
    model = write_relative(tmp_path / "tiny-mixtral", "mixtral", num_local_experts=4, num_experts_per_tok=2)
    data = write_splits(tmp_path / "data", "arc", train=64, validation=32, test=16)
    settings = FEW | {"experts.parallel": 1}  # one process, where the scale has eight
    command = arguments(tmp_path, "--scale", "paper", "--model", model, "--data", data, settings=settings)
    answer = cli(*command)
    assert answer.status == 0, answer.err
    made = results(tmp_path / "paper")
    assert tuple(made) == ("plain", "adamoe")
    assert {result["config"]["model"]["dtype"] for result in made.values()} == {"bf16"}
    assert made["plain"]["curve"][0][2] == pytest.approx(made["adamoe"]["curve"][0][2], rel=1e-2)
    assert 0 < made["adamoe"]["routing_eval"]["mean_experts"] < 2
    assert [row["Model"] for row in table(tmp_path / "paper", "adamoe.csv")] == ["mixtral"] * 2


def test_another_number_of_experts_than_the_model_has(cli: CommandLine, tmp_path: Path) -> None:
    model = write_relative(tmp_path / "tiny-mixtral", "mixtral", num_local_experts=4, num_experts_per_tok=2)
    data = write_splits(tmp_path / "data", "arc", train=64, validation=32, test=16)
    sizes = {key: None for key in SMALL_BY_TASK["arc"] if key.startswith(("model.", "experts."))}
    options = ("--set", "model.backbone=mixtral", "--set", "experts.count=8", "--data", data)
    answer = cli.train("adamoe", tmp_path, "--model", model, *options, task="arc", settings=sizes)
    refused(answer, r"experts\.count: 8 are not the 4 experts of the model's MoE blocks; set .*=4$")
