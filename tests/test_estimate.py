"""What a run will take, against what it took: steps, tokens, parameters and FLOPs."""

import math
from dataclasses import dataclass
from typing import Protocol

import pytest
import torch
from command_line import SMALL_BY_TASK, only_run, read_lines
from resolved import resolved as as_resolved

from repro.config import RunConfig
from repro.results.files import RunPaths
from repro.results.run import RunResult
from repro.run.blueprint import mean_experts
from repro.run.execute import execute
from repro.run.setup import load_examples
from repro.study.estimate import Estimate, estimate, matmul_speed

# Its steps are those of the result; a trunk has some more.
LINEAR = {"training.schedule": "linear"}
BY_EPOCHS = {"training.steps": None}
WHOLE_EPOCHS = {
    # 64 samples in batches of 16, twice.
    "sst2": BY_EPOCHS | {"training.epochs": 2},
    # Batches of 200 positions: how many, the order of the epoch decides.
    "wmt19": BY_EPOCHS | {"training.epochs": 1, "data.train_samples": 24},
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A run, as estimated and as made."""

    estimate: Estimate
    result: RunResult


class Resolved(Protocol):
    """`resolved(task, gate, **changes)`: a small run as configuration and paths."""

    def __call__(self, task: str, gate: str, **changes: object) -> tuple[RunConfig, RunPaths]: ...


class Compared(Protocol):
    """`compared(task, gate, **changes)`: estimate and make it, each once."""

    def __call__(self, task: str, gate: str, **changes: object) -> Pair: ...


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> Resolved:
    """A small run that is not made."""

    def make(task: str, gate: str, **changes: object) -> tuple[RunConfig, RunPaths]:
        settings = {
            key: value
            for key, value in (SMALL_BY_TASK[task] | LINEAR | changes).items()
            if value is not None and not (gate == "dense" and key.startswith("experts."))
        }
        return as_resolved(gate, task=task, overrides=settings, results=tmp_path_factory.mktemp("results"))

    return make


@pytest.fixture(scope="module")
def compared(resolved: Resolved) -> Compared:
    """A small run, estimated and made."""
    made: dict[str, Pair] = {}

    def make(task: str, gate: str, **changes: object) -> Pair:
        config, paths = resolved(task, gate, **changes)
        if config.run_id not in made:
            counted = estimate(config, paths, load_examples(config, paths), lambda: 1e9)
            done = execute(config, paths, report=lambda progress: None, should_stop=lambda: False)
            made[config.run_id] = Pair(estimate=counted, result=done)
        return made[config.run_id]

    return make


def total_flops(result: RunResult) -> float:
    """FLOPs of the forward passes of training, as routed."""
    assert result.flops.per_token is not None
    return result.flops.per_token * result.tokens


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
@pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
def test_whole_epochs_are_exact(compared: Compared, task: str, gate: str) -> None:
    pair = compared(task, gate, **WHOLE_EPOCHS[task])
    assert pair.result.epochs == WHOLE_EPOCHS[task]["training.epochs"]
    assert pair.estimate.steps == pair.result.steps > 1
    assert pair.estimate.tokens == pair.result.tokens
    assert pair.estimate.parameters == pair.result.parameters.total


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
@pytest.mark.parametrize(("gate", "tolerance"), [("dense", 1e-6), ("top-1", 1e-6), ("top-2", 0.01)])
def test_flops_where_experts_are_fixed(compared: Compared, task: str, gate: str, tolerance: float) -> None:
    pair = compared(task, gate, **WHOLE_EPOCHS[task])
    routed = total_flops(pair.result)
    assert pair.estimate.flops == pytest.approx(routed, rel=tolerance)


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
def test_flops_of_an_adaptive_gate_lie_between(compared: Compared, task: str) -> None:
    top_1, adaptive, top_2 = (
        compared(task, gate, **WHOLE_EPOCHS[task]).estimate.flops for gate in ("top-1", "adaptive", "top-2")
    )
    assert top_1 < adaptive < top_2
    result = compared(task, "adaptive", **WHOLE_EPOCHS[task]).result
    assert adaptive == pytest.approx(total_flops(result), rel=0.1)


def test_a_trunk_and_its_cooldown_are_counted(resolved: Resolved) -> None:
    """6 steps, of which the branch does 2 again, and one as the margin of the trunk."""
    config, paths = resolved("sst2", "top-2", **{"training.schedule": "wsd"})
    counted = estimate(config, paths, load_examples(config, paths), lambda: 1e9)
    execute(config, paths, report=lambda progress: None, should_stop=lambda: False)
    folder = only_run(paths.results)
    done = [row for part in (folder, folder / "cooldown") for row in read_lines(part / "steps.jsonl")]
    assert counted.steps == len(done) == 9
    assert counted.tokens == pytest.approx(sum(row["tokens"] for row in done), rel=0.15)


def test_part_of_an_epoch(compared: Compared) -> None:
    """6 steps are one and a half epochs: the steps are exact, tokens about that share of an epoch's."""
    pair = compared("sst2", "top-2")
    assert pair.estimate.steps == pair.result.steps == 6
    assert pair.estimate.tokens == pytest.approx(pair.result.tokens, rel=0.15)
    assert pair.estimate.parameters == pair.result.parameters.total


def test_accumulation_divides_the_steps(resolved: Resolved) -> None:
    plain, grouped = (
        estimate(config, paths, load_examples(config, paths), lambda: 1e9)
        for config, paths in (
            resolved("sst2", "top-2", **WHOLE_EPOCHS["sst2"], **{"training.accumulation": batches})
            for batches in (1, 2)
        )
    )
    assert (plain.steps, grouped.steps) == (8, 4)
    assert (plain.tokens, plain.flops) == (grouped.tokens, grouped.flops)


def test_seconds_and_memory(resolved: Resolved) -> None:
    """Three forward passes at half the speed, and the optimiser; four values for each parameter."""
    config, paths = resolved("sst2", "top-2")
    examples = load_examples(config, paths)
    slow = estimate(config, paths, examples, lambda: 1e6)
    endless = estimate(config, paths, examples, lambda: math.inf)
    assert slow.seconds - endless.seconds == pytest.approx(3 * slow.flops / 0.5e6)
    assert endless.seconds == pytest.approx(6 * 28 * slow.parameters / 10e9)
    assert slow.memory_bytes > 16 * slow.parameters


def test_more_positions_need_more_memory(resolved: Resolved) -> None:
    large, small = (
        estimate(config, paths, load_examples(config, paths), lambda: 1e9).memory_bytes
        for config, paths in (resolved("sst2", "top-2", **{"training.batch_size": size}) for size in (64, 4))
    )
    assert large > small  # the process itself never takes less later


def test_attention_with_dropout_keeps_its_weights(
    resolved: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three numbers for every pair of positions, head and layer, of the batch that has the most.

    Without dropout attention is fused: four bytes for each pair, the mask of padding, and for each position
    and head the sum of its softmax.
    """
    monkeypatch.setattr("repro.study.estimate.peak_memory_bytes", lambda device: 1e9)
    config, paths = resolved("sst2", "dense", **{"training.batch_size": 64})
    examples = load_examples(config, paths)
    dropped, _ = resolved(
        "sst2", "dense", **{"training.batch_size": 64, "model.config.attention_probs_dropout_prob": 0.1}
    )
    fused, kept = (estimate(one, paths, examples, lambda: 1e9).memory_bytes for one in (config, dropped))
    sizes = dict(config.model.config)
    longest = max(len(feature["input_ids"]) for feature in examples.features["train"])
    positions = len(examples.features["train"]) * longest
    heads, layers = sizes["num_attention_heads"], sizes["num_hidden_layers"]
    assert isinstance(heads, int)
    assert isinstance(layers, int)
    assert sizes["attention_probs_dropout_prob"] == 0
    kept_more = layers * (positions * longest * (12 * heads - 4) - positions * 4 * heads)
    # In the backward pass of a layer there are gradients of its attention, too.
    in_work = 8 * heads * positions * longest
    assert kept - fused == kept_more + in_work > 0
    assert fused > 1e9


def test_nothing_is_written(resolved: Resolved) -> None:
    config, paths = resolved("sst2", "adaptive")
    estimate(config, paths, load_examples(config, paths), lambda: 1e9)
    assert list(paths.results.iterdir()) == []


def test_the_model_is_never_built_with_weights(resolved: Resolved) -> None:
    """Fifty gigabytes of experts is counted all the same, however they would start."""
    huge = {"experts.count": 1000, "model.config.intermediate_size": 100_000}
    config, paths = resolved("sst2", "top-2", **huge)
    examples = load_examples(config, paths)
    counted = estimate(config, paths, examples, lambda: 1e9)
    one_expert = 2 * 32 * 100_000 + 32 + 100_000
    routers, layers = 1000 * 32, 2
    plain, _ = resolved("sst2", "dense")
    dense = estimate(plain, paths, examples, lambda: 1e9).parameters
    one_ffn = 2 * 32 * 64 + 32 + 64
    assert counted.parameters == dense + layers * (1000 * one_expert + routers - one_ffn)
    copied, _ = resolved("sst2", "top-2", **huge, **{"experts.init": "upcycle"})
    assert estimate(copied, paths, examples, lambda: 1e9).parameters == counted.parameters


@pytest.mark.parametrize(
    ("gate", "low", "high"),
    [("dense", 0, 0), ("top-1", 1, 1), ("top-2", 2, 2), ("adaptive", 1.2, 1.4)],
)
def test_experts_of_a_fresh_gate(resolved: Resolved, gate: str, low: float, high: float) -> None:
    """DESIGN: logits of standard deviation 1 and T = 0.1 give 31 % of the tokens two of 16 experts."""
    changes = {} if gate == "dense" else {"experts.count": 16}
    config, _ = resolved("sst2", gate, **changes)
    assert low <= mean_experts(config, 128) <= high


def test_speed_of_this_machine() -> None:
    assert 1e7 < matmul_speed(torch.device("cpu")) < 1e15
