"""AdamW and the clipping of gradients."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from repro.config import TrainingConfig
from repro.training.optimizer import make_optimizer
from repro.training.placement import Placement, exceeds


class Layer(nn.Module):
    """Weights with these gradients, and a parameter that has none."""

    def __init__(self, *gradients: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, len(gradients)))
        self.weight.grad = torch.tensor([gradients])
        self.unused = nn.Parameter(torch.zeros(3))

    @property
    def gradient(self) -> torch.Tensor:
        """The gradient of the weights."""
        assert self.weight.grad is not None
        return self.weight.grad


def clip_gradients(layer: Layer, limit: float | None) -> float:
    """Clip as a step of one process does, and return the norm before."""
    accelerator = cast(Accelerator, SimpleNamespace(num_processes=1))
    placement = Placement(
        accelerator=accelerator, plain=layer, model=layer, mesh=None, parameters=0, global_balance=True
    )
    norm = placement.finish_gradients()
    if limit is not None and exceeds(float(norm), limit):
        placement.clip(norm, limit)
    return float(norm)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(10.0, [3.0, 4.0]), (None, [3.0, 4.0]), (2.5, [1.5, 2.0]), (5.0, [3.0, 4.0])],
)
def test_gradients_of_norm_5(limit: float | None, expected: list[float]) -> None:
    layer = Layer(3.0, 4.0)
    assert clip_gradients(layer, limit) == 5.0
    torch.testing.assert_close(layer.gradient, torch.tensor([expected]), rtol=1e-6, atol=0)
    assert layer.unused.grad is None


@pytest.mark.parametrize("norm", [0.5, 1 - 1e-6, 1 - 1e-8, 1.0, 1.0001, 30.0])
def test_the_same_bits_as_torchs_own(norm: float) -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    values *= norm / values.norm()
    ours, theirs = Layer(*values.tolist()), Layer(*values.tolist())
    before = clip_gradients(ours, 1.0)
    assert before == float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0))
    assert torch.equal(ours.gradient, theirs.gradient)


def test_gradients_within_the_limit_are_not_written() -> None:
    layer = Layer(0.3, 0.4)
    version = layer.gradient._version
    clip_gradients(layer, 1.0)
    assert layer.gradient._version == version


def test_biases_and_norms_are_not_decayed() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(2, 3), "norm": nn.LayerNorm(2)})
    model["linear"].b1 = nn.Parameter(torch.zeros(4, 3))  # of several experts
    settings = TrainingConfig(learning_rate=0.5, weight_decay=0.1, steps=10, batch_size=1)
    decayed, others = make_optimizer(model, settings).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(3, 2)]
    assert len(others["params"]) == 4
