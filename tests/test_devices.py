"""Several processes train like one, however experts and tensors are spread over them (gloo, on the CPU)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from launches import launch
from trained_tiny import HEADS, Case, Trained, train_tiny

from repro import plugins
from repro.errors import UserError
from repro.moe.gates import base as gates

TOLERANCE = 2e-6
GATES = [
    name
    for name in plugins.names("gates")
    if (gate := gates.load(name).Gate) is not None and not gate.whole_batches
]


def assert_equal(several: list[Trained], one: Trained) -> None:
    """Losses, norms, routing and every weight are those of one process."""
    first = several[0]
    assert len(first.steps) == len(one.steps)
    for ours, expected in zip(first.steps, one.steps, strict=True):
        for key in ("loss", "auxiliary_loss", "gradient_norm"):
            assert ours[key] == pytest.approx(expected[key], abs=TOLERANCE, rel=TOLERANCE), key
        for key in ("tokens", "mean_experts", "share_two"):
            assert ours[key] == expected[key], key
    assert set(first.tensors) == set(one.tensors)
    for name, tensor in one.tensors.items():
        # Moments are sums of gradients. Weights are no measure: AdamW divides by the size of a gradient, and
        # where that is rounding alone, as in the biases of keys, so is the step.
        if name.endswith(".exp_avg"):
            torch.testing.assert_close(first.tensors[name], tensor, rtol=0, atol=TOLERANCE, msg=name)
    for process in several:
        for name, state in one.states.items():
            torch.testing.assert_close(process.states[name], state, rtol=0, atol=TOLERANCE)


class Reference(dict[str, Trained]):
    """Outcomes of one process, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, **values: Any) -> Trained:
        case = Case(**values)
        key = repr(case)
        if key not in self:
            self[key] = launch(train_tiny, 1, case, self.folder / str(len(self)))[0]
        return self[key]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("gate", GATES)
def test_every_gate(one: Reference, tmp_path: Path, gate: str) -> None:
    several = launch(train_tiny, 2, Case(gate=gate), tmp_path)
    assert_equal(several, one.of(gate=gate))
    assert several[0].own_parameters < sum(weight.numel() for weight in several[0].weights.values())


@pytest.mark.parametrize("backbone", sorted(HEADS))
def test_every_backbone(one: Reference, tmp_path: Path, backbone: str) -> None:
    """Spread, and with activations computed again."""
    case = Case(backbone=backbone, training={"gradient_checkpointing": True})
    assert_equal(launch(train_tiny, 4, case, tmp_path), one.of(backbone=backbone))


WAYS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "copied experts": (2, {"parallel": 1}, {}),
    "spread and copied": (4, {"parallel": 2}, {}),
    "sharded": (2, {"parallel": 1}, {"shard": "fsdp"}),
    "sharded, spread": (2, {}, {"shard": "fsdp"}),
    "sharded, spread and copied": (4, {"parallel": 2}, {"shard": "fsdp"}),
    "accumulated": (2, {}, {"accumulation": 2}),
    "accumulated, sharded": (2, {}, {"accumulation": 2, "shard": "fsdp"}),
    "computed again": (2, {}, {"gradient_checkpointing": True}),
    "computed again, sharded": (2, {}, {"gradient_checkpointing": True, "shard": "fsdp"}),
}
"""How it is spread -> processes, settings of experts and training."""


@pytest.mark.parametrize("way", sorted(WAYS))
def test_every_way(one: Reference, tmp_path: Path, way: str) -> None:
    processes, experts, training = WAYS[way]
    accumulation = {"accumulation": training.get("accumulation", 1)}
    several = launch(train_tiny, processes, Case(experts=experts, training=training), tmp_path)
    assert_equal(several, one.of(training=accumulation))


LOW_RANK = {"lora_rank": 2, "lora_alpha": 4.0}


@pytest.mark.parametrize(("processes", "parallel"), [(2, 1), (2, 2)])
def test_low_rank_additions(one: Reference, tmp_path: Path, processes: int, parallel: int) -> None:
    """Experts' own are spread with them; the model that is left is one without additions."""
    case: dict[str, Any] = {"backbone": "mixtral", "training": LOW_RANK}
    several = launch(train_tiny, processes, Case(**case, experts={"parallel": parallel}), tmp_path)
    expected = one.of(**case)
    assert_equal(several, expected)
    assert several[0].parameters == several[1].parameters == expected.parameters
    assert set(several[0].weights) == set(expected.weights)
    for name, weight in expected.weights.items():
        assert "lora" not in name
        torch.testing.assert_close(several[0].weights[name], weight, rtol=0, atol=1e-4)


def test_low_rank_additions_go_on(one: Reference, tmp_path: Path) -> None:
    """Two processes have two experts each, four have one, and a checkpoint is the same."""
    case: dict[str, Any] = {"backbone": "mixtral", "training": LOW_RANK, "steps": 5}
    stopped = launch(train_tiny, 2, Case(**case, stop_after=2), tmp_path)
    assert len(stopped[0].steps) in (2, 3)
    assert_equal(launch(train_tiny, 4, Case(**case), tmp_path), one.of(**case))


def test_more_processes_than_samples(one: Reference, tmp_path: Path) -> None:
    """Every sample is trained on, by one process while the others go through the motions."""
    case: dict[str, Any] = {"training": {"batch_size": 1}, "samples": 3, "steps": 3}
    several = launch(train_tiny, 4, Case(**case), tmp_path)
    assert_equal(several, one.of(**case))
    assert sum(step["tokens"] for step in several[0].steps) == sum(
        step["tokens"] for step in one.of(**case).steps
    )


def test_a_dense_model(one: Reference, tmp_path: Path) -> None:
    assert_equal(launch(train_tiny, 2, Case(gate="dense"), tmp_path), one.of(gate="dense"))


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 4)])
def test_goes_on_with_another_number_of_processes(
    one: Reference, tmp_path: Path, before: int, after: int
) -> None:
    """A checkpoint knows no number of processes, and no way of spreading."""
    training = {"shard": "fsdp"} if before == 2 else {}
    stopped = launch(train_tiny, before, Case(steps=5, training=training, stop_after=2), tmp_path)
    assert len(stopped[0].steps) in (2, 3)
    several = launch(train_tiny, after, Case(steps=5), tmp_path)
    assert_equal(several, one.of(steps=5))


def test_the_steps_belong_to_the_checkpoint(tmp_path: Path) -> None:
    """Batches by positions are as many times larger as there are processes, so there are fewer steps."""
    training = {"batch_size": None, "batch_tokens": 40, "steps": None, "epochs": 2.0}
    case = Case(training=training, steps=3, stop_after=2)
    launch(train_tiny, 1, case, tmp_path)
    with pytest.raises(UserError, match=r"1 processes wrote it in a run of .* steps .*; 2 would do"):
        launch(train_tiny, 2, case, tmp_path)


def test_a_gate_that_needs_whole_batches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--gate expert-choice: needs whole batches"):
        launch(train_tiny, 2, Case(backbone="bert", gate="expert-choice"), tmp_path)


@pytest.mark.parametrize(
    ("processes", "experts", "problem"),
    [
        (1, {"parallel": 2}, "experts.parallel: 2 processes are to share the experts, and this is one"),
        (2, {"parallel": 3}, "experts.parallel: 3 does not divide the 4 experts; give one of 1, 2, 4"),
        (2, {"parallel": 4}, "experts.parallel: 4 does not divide the 2 processes; give one of 1, 2"),
    ],
)
def test_what_cannot_be_spread(tmp_path: Path, processes: int, experts: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        launch(train_tiny, processes, Case(experts=experts), tmp_path)
