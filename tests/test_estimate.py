"""What a run will take, against what it took: steps, tokens, parameters and FLOPs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from repro._prepare import load_examples
from repro.estimate import Estimate, estimate, matmul_speed, mean_experts
from repro.experiments import Override, resolve
from repro.run import execute

BY_EPOCHS = {"training.steps": None, "evaluation.every": 100}
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
    result: dict[str, Any]


@pytest.fixture(scope="module")
def resolved(repro: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`resolved(task, gate, **changes)`: a small run as configuration and places."""

    def make(task: str, gate: str, **changes: object) -> Any:
        settings = {
            key: value
            for key, value in (repro.small_by_task[task] | changes).items()
            if value is not None and not (gate == "dense" and key.startswith("experts."))
        }
        return resolve(
            task=task,
            scale="mini",
            gate=gate,
            seed=0,
            data=None,
            model=None,
            overrides={key: Override(value, key) for key, value in settings.items()},
            results=tmp_path_factory.mktemp("results"),
        )

    return make


@pytest.fixture(scope="module")
def compared(resolved: Any) -> Callable[..., Pair]:
    """`compared(task, gate, **changes)`: estimate and make it, each once."""
    made: dict[str, Pair] = {}

    def make(task: str, gate: str, **changes: object) -> Pair:
        config, places = resolved(task, gate, **changes)
        if config.run_id not in made:
            found = estimate(config, places, load_examples(config, places), lambda: 1e9)
            done = execute(config, places, report=lambda record: None, should_stop=lambda: False)
            made[config.run_id] = Pair(estimate=found, result=done)
        return made[config.run_id]

    return make


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
@pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
def test_whole_epochs_are_exact(compared: Any, task: str, gate: str) -> None:
    pair = compared(task, gate, **WHOLE_EPOCHS[task])
    assert pair.result["epochs"] == WHOLE_EPOCHS[task]["training.epochs"]
    assert pair.estimate.steps == pair.result["steps"] > 1
    assert pair.estimate.tokens == pair.result["tokens"]
    assert pair.estimate.parameters == pair.result["parameters"]["total"]


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
@pytest.mark.parametrize(("gate", "tolerance"), [("dense", 1e-6), ("top-1", 1e-6), ("top-2", 0.01)])
def test_flops_where_experts_are_fixed(compared: Any, task: str, gate: str, tolerance: float) -> None:
    pair = compared(task, gate, **WHOLE_EPOCHS[task])
    routed = pair.result["flops"]["per_token"] * pair.result["tokens"]
    assert pair.estimate.flops == pytest.approx(routed, rel=tolerance)


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
def test_flops_of_an_adaptive_gate_lie_between(compared: Any, task: str) -> None:
    top_1, adaptive, top_2 = (
        compared(task, gate, **WHOLE_EPOCHS[task]).estimate.flops for gate in ("top-1", "adaptive", "top-2")
    )
    assert top_1 < adaptive < top_2
    result = compared(task, "adaptive", **WHOLE_EPOCHS[task]).result
    assert adaptive == pytest.approx(result["flops"]["per_token"] * result["tokens"], rel=0.1)


def test_part_of_an_epoch(compared: Any) -> None:
    """6 steps are one and a half epochs: the steps are exact, tokens about that share of an epoch's."""
    pair = compared("sst2", "top-2")
    assert pair.estimate.steps == pair.result["steps"] == 6
    assert pair.estimate.tokens == pytest.approx(pair.result["tokens"], rel=0.15)
    assert pair.estimate.parameters == pair.result["parameters"]["total"]


def test_accumulation_divides_the_steps(resolved: Any) -> None:
    plain, grouped = (
        estimate(config, places, load_examples(config, places), lambda: 1e9)
        for config, places in (
            resolved("sst2", "top-2", **WHOLE_EPOCHS["sst2"], **{"training.accumulation": batches})
            for batches in (1, 2)
        )
    )
    assert (plain.steps, grouped.steps) == (8, 4)
    assert (plain.tokens, plain.flops) == (grouped.tokens, grouped.flops)


def test_seconds_and_memory(resolved: Any) -> None:
    """Three forward passes at half the speed, and the optimiser; four values for each parameter."""
    config, places = resolved("sst2", "top-2")
    examples = load_examples(config, places)
    slow, endless = (
        estimate(config, places, examples, lambda speed=speed: speed) for speed in (1e6, math.inf)
    )
    assert slow.seconds - endless.seconds == pytest.approx(3 * slow.flops / 0.5e6)
    assert endless.seconds == pytest.approx(6 * 28 * slow.parameters / 10e9)
    assert slow.memory_bytes > 16 * slow.parameters


def test_more_positions_need_more_memory(resolved: Any) -> None:
    large, small = (
        estimate(config, places, load_examples(config, places), lambda: 1e9).memory_bytes
        for config, places in (resolved("sst2", "top-2", **{"training.batch_size": size}) for size in (64, 4))
    )
    assert large > small  # the process itself never takes less later


def test_attention_with_dropout_keeps_its_weights(resolved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three numbers for every pair of positions, head and layer, of the batch that has the most."""
    monkeypatch.setattr("repro.estimate.peak_memory_bytes", lambda device: 1e9)
    config, places = resolved("sst2", "dense", **{"training.batch_size": 64})
    examples = load_examples(config, places)
    dropped, _ = resolved(
        "sst2", "dense", **{"training.batch_size": 64, "model.config.attention_probs_dropout_prob": 0.1}
    )
    fused, kept = (estimate(one, places, examples, lambda: 1e9).memory_bytes for one in (config, dropped))
    sizes = dict(config.model.config)
    longest = max(len(feature["input_ids"]) for feature in examples.features["train"])
    pairs = len(examples.features["train"]) * longest**2
    heads = sizes["num_attention_heads"] * sizes["num_hidden_layers"]
    assert sizes["attention_probs_dropout_prob"] == 0
    assert kept - fused == 4 * 3 * heads * pairs > 0
    assert fused > 1e9


def test_nothing_is_written(resolved: Any) -> None:
    config, places = resolved("sst2", "adaptive")
    estimate(config, places, load_examples(config, places), lambda: 1e9)
    assert list(places.results.iterdir()) == []


def test_the_model_is_never_built_with_weights(resolved: Any) -> None:
    """Half a terabyte of experts is counted all the same, however they would start."""
    huge = {"experts.count": 1000, "model.config.intermediate_size": 1_000_000}
    config, places = resolved("sst2", "top-2", **huge)
    examples = load_examples(config, places)
    found = estimate(config, places, examples, lambda: 1e9)
    one_expert = 2 * 32 * 1_000_000 + 32 + 1_000_000
    routers, layers = 1000 * 32, 2
    plain, _ = resolved("sst2", "dense")
    dense = estimate(plain, places, examples, lambda: 1e9).parameters
    one_ffn = 2 * 32 * 64 + 32 + 64
    assert found.parameters == dense + layers * (1000 * one_expert + routers - one_ffn)
    copied, _ = resolved("sst2", "top-2", **huge, **{"experts.init": "upcycle"})
    assert estimate(copied, places, examples, lambda: 1e9).parameters == found.parameters


@pytest.mark.parametrize(
    ("gate", "low", "high"),
    [("dense", 0, 0), ("top-1", 1, 1), ("top-2", 2, 2), ("adaptive", 1.2, 1.4)],
)
def test_experts_of_a_fresh_gate(resolved: Any, gate: str, low: float, high: float) -> None:
    """DESIGN: logits of standard deviation 1 and T = 0.1 give 31 % of the tokens two of 16 experts."""
    changes = {} if gate == "dense" else {"experts.count": 16}
    config, _ = resolved("sst2", gate, **changes)
    assert low <= mean_experts(config, 128) <= high


def test_speed_of_this_machine() -> None:
    import torch

    assert 1e7 < matmul_speed(torch.device("cpu")) < 1e15
