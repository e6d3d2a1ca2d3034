"""Check and time everything that needs a CUDA device, the most telling first (`repro bench --gpu`).

Every function takes the device, so that tests do all of it on the CPU with small sizes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

import torch
from torch import Tensor

from repro.bench.cases import SIZES, Case, forced_routing, layer_weights
from repro.bench.gpu_step import time_step
from repro.bench.layer import measured_case
from repro.config import RunConfig
from repro.errors import UserError, named_line
from repro.machine import Stopwatch
from repro.moe.experts import grouped, loop
from repro.moe.ffn import FFN
from repro.results.bench import BenchCase
from repro.results.gpu import GpuCheck

_RIVALS = ("transformers-grouped_mm", "dense")
_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Largest relative difference from the CPU's fp32 that is rounding."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is checked, in which sizes; the defaults are those of a GPU."""

    models: Sequence[RunConfig]
    """A run of each model that is to do a step."""
    sizes: Sequence[str] = ("bert", "gpt2", "fsmt")
    """Layers of the paper's models, names in `SIZES`."""
    tokens: Sequence[int] = (8192, 32768)
    """Of the layers that are timed."""
    parity_tokens: int = 512
    """Of the layer that is compared with the CPU's."""
    experts: int = 16
    repeats: int = 10
    product: int = 8192
    """Rows and columns of the product that gives the rate of the device."""
    seconds: float = 600.0
    """No check begins later."""


_Check = Callable[[], Mapping[str, float]]
"""Returns what it measured, by what it is; raises AssertionError if something is wrong."""


def checks(plan: Plan, device: torch.device, keep: Callable[[BenchCase], None]) -> Iterator[GpuCheck]:
    """Do all checks, one after the other; one that fails does not keep the others from being done.

    Args:
        keep: called with the timings of every layer.
    """
    start = monotonic()
    for name, check in _checks(plan, device, keep).items():
        if monotonic() - start > plan.seconds:
            yield GpuCheck(name=name, passed=None, numbers={}, note="no time left")
        else:
            yield _outcome(name, check)


def _checks(plan: Plan, device: torch.device, keep: Callable[[BenchCase], None]) -> dict[str, _Check]:
    """Name all checks in the order of their worth: times are worth nothing if the numbers are wrong."""
    named: dict[str, _Check] = {
        "same numbers as the CPU": partial(_parity, plan, device),
        "no gradient for idle experts": partial(_idle, plan, device),
    }
    for size in plan.sizes:
        for tokens in plan.tokens:
            case = Case(size=size, tokens=tokens, experts=plan.experts, precision="bf16")
            named[f"layer {size}, {tokens} tokens"] = partial(_layer, case, plan, device, keep)
    for config in plan.models:
        named[f"step of {config.task}"] = partial(time_step, config, device)
    return named


def _outcome(name: str, check: _Check) -> GpuCheck:
    passed, numbers, note = True, dict[str, float](), ""
    try:
        numbers = dict(check())
    except AssertionError as error:
        passed, note = False, str(error)
    except torch.OutOfMemoryError as error:
        return GpuCheck(name=name, passed=None, numbers={}, note=named_line(error)[:300])
    except (RuntimeError, UserError) as error:  # such as an operation that this device lacks
        passed, note = False, named_line(error)[:300]
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return GpuCheck(name=name, passed=passed, numbers=numbers, note=note)


def _layer(
    case: Case, plan: Plan, device: torch.device, keep: Callable[[BenchCase], None]
) -> Mapping[str, float]:
    """Time a layer beside its rivals; compare them where every token has two experts."""
    measured = measured_case(case, device, repeats=plan.repeats, only=("grouped", *_RIVALS))
    keep(measured)
    at_top_2 = {row.implementation: row for row in measured.rows if row.share_top1 == 0}
    ours = at_top_2["grouped"]
    # Three products of every row with each matrix: forward, and for both gradients.
    rate = 3 * 2 * SIZES[case.size].parameters * ours.rows / ours.both_seconds
    numbers = {
        "milliseconds": 1000 * ours.both_seconds,
        "share of the device's rate": rate / product_rate(plan.product, device),
    }
    for name in _RIVALS:
        if name in at_top_2:
            numbers[f"time over {name}"] = ours.both_seconds / at_top_2[name].both_seconds
    return numbers


def product_rate(size: int, device: torch.device) -> float:
    """Measure the FLOP/s of one product of square matrices in bf16, the most that a layer can reach."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    watch, seconds = Stopwatch(device), []
    for _ in range(13):
        with watch:
            left @ right
        seconds.append(watch.seconds)
    return 2 * size**3 / statistics.median(seconds[3:])


def _parity(plan: Plan, device: torch.device) -> Mapping[str, float]:
    """Compare output and gradients of every precision with those of the reference on the CPU in fp32."""
    case = Case(size=plan.sizes[0], tokens=plan.parity_tokens, experts=plan.experts, precision="fp32")
    cpu = torch.device("cpu")
    weights = layer_weights(case, cpu)
    expected = _gradients(loop.forward, weights, case, 0.5)
    numbers = {}
    for dtype, limit in _LIMITS.items():
        ours = _gradients(grouped.forward, _moved(weights, device, dtype), case, 0.5)
        pairs = zip(ours, expected, strict=True)
        worst = max(float((one.float().cpu() - other).norm() / other.norm()) for one, other in pairs)
        name = str(dtype).removeprefix("torch.")
        assert worst < limit, f"{name} differs by {worst:.2g}, and at most {limit:g} is rounding"
        numbers[f"relative difference in {name}"] = worst
    return numbers


def _idle(plan: Plan, device: torch.device) -> Mapping[str, float]:
    """Check that experts without tokens get gradients of exactly 0, whatever their weights are."""
    case = Case(size=plan.sizes[0], tokens=2, experts=plan.experts, precision="bf16")
    weights = layer_weights(case, device)
    load_E = forced_routing(case.tokens, case.experts, 1.0, torch.bfloat16, device).load_E
    idle = [expert for expert, load in enumerate(load_E.tolist()) if load == 0]
    with torch.no_grad():
        for tensor in weights.tensors:
            tensor[idle] = torch.nan
    _, _, *gradients = _gradients(grouped.forward, weights, case, 1.0)
    largest = max(float(gradient[idle].abs().max()) for gradient in gradients)
    assert largest == 0, f"the largest gradient of an idle expert is {largest:g}"
    return {"idle experts": len(idle)}


def _gradients(forward: Callable[..., Tensor], weights: FFN, case: Case, share_top1: float) -> list[Tensor]:
    """Return the output of a layer, and the gradients of its input and of the stacked weights."""
    device, dtype = weights.w1.device, weights.w1.dtype
    routing = forced_routing(case.tokens, case.experts, share_top1, dtype, device)
    generator = torch.Generator().manual_seed(3)
    x_TD = torch.randn(case.tokens, SIZES[case.size].d_model, generator=generator).to(device, dtype)
    y_TD = forward(x_TD.requires_grad_(), routing, weights)
    return [
        y_TD.detach(),
        *torch.autograd.grad(y_TD, (x_TD, *weights.tensors), torch.ones_like(y_TD)),
    ]


def _moved(weights: FFN, device: torch.device, dtype: torch.dtype) -> FFN:
    return weights.map(lambda tensor: tensor.detach().to(device, dtype).requires_grad_())
