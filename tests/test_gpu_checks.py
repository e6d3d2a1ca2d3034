"""What `make gpu` does, on the CPU in small: every function is reached. And what it says without a GPU."""

import json
from pathlib import Path

import pytest
import torch
from command_line import SMALL_BY_TASK, CommandLine, Settings
from resolved import config

from repro.bench import gpu
from repro.bench.cases import SIZES, Size
from repro.bench.gpu import Plan, checks
from repro.bench.gpu_step import random_batch, time_step
from repro.cli import gpu_checks
from repro.config import RunConfig
from repro.moe.experts import grouped
from repro.report.publish import published_folder, stale_published
from repro.results.bench import Bench, BenchCase
from repro.results.gpu import GpuCheck, GpuChecks

CPU = torch.device("cpu")
VOCABULARY: dict[str, Settings] = {
    "sst2": {"model.config.vocab_size": 50},
    "wmt19": {"model.config.src_vocab_size": 50, "model.config.tgt_vocab_size": 50},
    "cnn_dailymail": {"model.config.vocab_size": 50},
    "wikitext": {"model.config.vocab_size": 50},
}


def small_model(task: str) -> RunConfig:
    """A model of the family of a task as `paper_model` makes it, of the sizes that tests train."""
    sizes = {
        key: value
        for key, value in SMALL_BY_TASK[task].items()
        if key.startswith(("model.config.", "experts.", "training.batch", "task.max"))
    }
    settings = {
        "experts.init": "upcycle",
        "training.gradient_checkpointing": task != "wmt19",
        "data.max_length": 16,
    }
    return config("top-2", task=task, overrides={**sizes, **VOCABULARY[task], **settings})


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setitem(SIZES, "tiny", Size(d_model=16, d_hidden=32))
    return Plan(
        models=[small_model("sst2")],
        sizes=["tiny"],
        tokens=[32],
        parity_tokens=32,
        experts=8,
        repeats=1,
        product=32,
    )


def test_all_checks_in_small(plan: Plan) -> None:
    kept: list[BenchCase] = []
    outcomes = {check.name: check for check in checks(plan, CPU, kept.append)}
    assert list(outcomes) == [
        "same numbers as the CPU",
        "no gradient for idle experts",
        "layer tiny, 32 tokens",
        "step of sst2",
    ]
    assert {check.passed for check in outcomes.values()} == {True}, outcomes
    differences = outcomes["same numbers as the CPU"].numbers
    assert 0 <= differences["relative difference in float32"] < 1e-5
    assert 1e-3 < differences["relative difference in bfloat16"] < 3e-2
    assert outcomes["no gradient for idle experts"].numbers["idle experts"] in (6, 7)
    assert set(outcomes["layer tiny, 32 tokens"].numbers) == {
        "milliseconds",
        "share of the device's rate",
        "time over transformers-grouped_mm",
        "time over dense",
    }
    (case,) = kept
    assert {row.implementation for row in case.rows} == {"grouped", "transformers-grouped_mm", "dense"}


def test_the_share_of_the_rate_by_hand(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Two experts for each of 32 tokens: 64 rows of 3 * 2 * 2 * 16 * 32 operations."""
    kept: list[BenchCase] = []
    monkeypatch.setattr(gpu, "product_rate", lambda size, device: 1e6)
    check = next(one for one in checks(plan, CPU, kept.append) if one.name.startswith("layer"))
    ours = next(
        row for row in kept[0].rows if (row.implementation, row.share_top1) == ("grouped", 0.0)
    ).both_seconds
    assert check.numbers["share of the device's rate"] == pytest.approx(64 * 6144 / ours / 1e6)


def test_wrong_numbers_are_found(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    right = grouped.forward
    monkeypatch.setattr(grouped, "forward", lambda *arguments: 1.1 * right(*arguments))
    first = next(checks(plan, CPU, lambda case: None))
    assert first.passed is False
    assert first.note == "float32 differs by 0.1, and at most 0.0001 is rounding"


def test_gradients_of_idle_experts_are_found(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    right = grouped.forward

    def leaking(x_TD: torch.Tensor, routing: object, weights: object) -> torch.Tensor:
        b2_ED: torch.Tensor = weights.b2  # type: ignore[attr-defined]
        return right(x_TD, routing, weights) + (b2_ED - b2_ED.detach()).sum()  # type: ignore[arg-type]

    monkeypatch.setattr(grouped, "forward", leaking)
    _, idle, *_ = checks(plan, CPU, lambda case: None)
    assert idle.passed is False
    assert "of an idle expert is" in idle.note


@pytest.mark.parametrize(
    ("error", "passed", "note"),
    [
        (RuntimeError("no such\noperation"), False, "RuntimeError: no such operation"),
        (torch.OutOfMemoryError("too large"), None, "OutOfMemoryError: too large"),
    ],
)
def test_a_check_that_cannot_be_done(
    error: Exception, passed: bool | None, note: str, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    def fail(config: RunConfig, device: torch.device) -> dict[str, float]:
        raise error

    monkeypatch.setattr(gpu, "time_step", fail)
    *others, step = checks(plan, CPU, lambda case: None)
    assert {check.passed for check in others} == {True}
    assert step == GpuCheck(name="step of sst2", passed=passed, numbers={}, note=note)


def test_no_check_begins_when_time_is_up(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    clock = iter([0.0, 1.0, 599.0, 601.0, 700.0])
    monkeypatch.setattr(gpu, "monotonic", lambda: next(clock))
    outcomes = list(checks(plan, CPU, lambda case: None))
    assert [check.passed for check in outcomes] == [True, True, None, None]
    assert outcomes[2].in_words() == "not done; no time left"


@pytest.mark.parametrize("task", gpu_checks.MODELS)
def test_a_step_of_every_family(task: str) -> None:
    small = small_model(task)
    numbers = time_step(small, CPU)
    assert numbers["milliseconds"] > 0
    batch = random_batch(small, 50, CPU)
    assert int(batch["input_ids"].max()) < 50
    rows = small.training.batch_size or (small.training.batch_tokens or 0) // 16
    assert batch["input_ids"].shape == (rows, 16)


@pytest.mark.parametrize("task", gpu_checks.MODELS)
def test_the_paper_s_models_are_resolved(task: str) -> None:
    resolved = gpu_checks.paper_model(task)
    assert (resolved.experts.count, resolved.experts.init, resolved.experts.parallel) == (16, "upcycle", 1)
    assert resolved.training.gradient_checkpointing
    batch = random_batch(resolved, 10, CPU)
    assert batch["input_ids"].numel() <= max(4096, (resolved.training.batch_size or 0) * 1024)


# --- the command -------------------------------------------------------------------------------------


def test_what_is_left_in_the_folder(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published_folder(tmp_path, "gpu")
    assert gpu_checks.do_checks(plan, CPU, folder, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    done = GpuChecks.read(folder / "checks.json")
    assert printed["checks"] == done.to_json()["checks"]
    assert len(Bench.read(folder / "bench.json").cases) == 1
    assert (folder / "table1.csv").exists()
    assert str(folder / "table1.csv") in printed["files"]
    assert stale_published(tmp_path) == []


def test_a_failed_check_gives_status_1(
    plan: Plan, tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_checks, "do_checks", lambda *arguments: False)
    assert cli("bench", "--gpu", "--out", tmp_path).status == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(tmp_path: Path, cli: CommandLine) -> None:
    done = cli("bench", "--gpu", "--out", tmp_path / "out")
    assert (done.status, done.out) == (2, "")
    assert done.err == ("repro: --gpu: there is no CUDA device here; tests do the same on the CPU in small\n")
    assert not (tmp_path / "out").exists()


def test_what_leaves_it_without_effect(tmp_path: Path, cli: CommandLine) -> None:
    done = cli("bench", "--gpu", "--parallel", "2", "--out", tmp_path / "out")
    assert done.status == 2
    assert done.err == "repro: --parallel: has no effect with --gpu\n"
