"""Every check that needs a CUDA device, the most telling first, within ten minutes (`make gpu`).

Each check is written as soon as it is done, so that what was measured stays if time or memory ends.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from repro.bench.cases import SIZES, Case, forced_routing, layer_weights
from repro.bench.layer import measure
from repro.config import RunConfig
from repro.errors import UserError, named_line
from repro.machine import Stopwatch, current_environment
from repro.moe import convert
from repro.moe.experts import grouped, loop
from repro.moe.ffn import FFN
from repro.results.bench import Bench, BenchCase
from repro.results.files import write_json
from repro.results.gpu import GpuCheck, GpuChecks
from repro.run.model import fresh_model, settings_of
from repro.run.resolve import resolve

_SECONDS = 600
_TOKENS = (8192, 32768)
_RIVALS = ("grouped", "transformers-grouped_mm", "dense")
_MODELS = ("sst2", "wmt19", "cnn_dailymail", "wikitext")
"""Tasks of the paper's four models."""
_STEPS = 5


def main() -> int:
    """Do all checks on the first CUDA device; return the exit status."""
    if len(sys.argv) != 2:
        print("usage: python -m repro.bench.gpu FOLDER", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("repro: make gpu: there is no CUDA device here", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda", 0)
    checks = GpuChecks(environment=current_environment(device), checks=[])
    start = monotonic()
    for name, check in _checks(device, folder).items():
        if monotonic() - start > _SECONDS:
            outcome = GpuCheck(name=name, passed=None, numbers={}, note="no time left")
        else:
            outcome = _outcome(name, check)
        checks.checks.append(outcome)
        write_json(folder / "checks.json", checks.to_json())
        print(f"{name}: {outcome.in_words()}", flush=True)
    return 1 if any(check.passed is False for check in checks.checks) else 0


def _outcome(name: str, check: Callable[[], Mapping[str, float]]) -> GpuCheck:
    """Do a check; one that fails does not keep the others from being done."""
    try:
        numbers = dict(check())
    except AssertionError as error:
        return GpuCheck(name=name, passed=False, numbers={}, note=str(error))
    except (RuntimeError, UserError) as error:  # no memory, or an operation that this device lacks
        return GpuCheck(name=name, passed=False, numbers={}, note=named_line(error)[:300])
    finally:
        torch.cuda.empty_cache()
    return GpuCheck(name=name, passed=True, numbers=numbers, note="")


def _checks(device: torch.device, folder: Path) -> dict[str, Callable[[], Mapping[str, float]]]:
    """Name all checks in the order of their worth."""
    checks: dict[str, Callable[[], Mapping[str, float]]] = {}
    for size in SIZES:
        for tokens in _TOKENS:
            case = Case(size=size, tokens=tokens, experts=SIZES[size].experts, precision="bf16")
            checks[f"layer {size}, {tokens} tokens"] = lambda case=case: _layer(case, device, folder)
    checks["parity of the CUDA path"] = lambda: _parity(device)
    checks["gradients of idle experts"] = lambda: _idle(device)
    for task in _MODELS:
        checks[f"step of {task} at paper"] = lambda task=task: _step(task, device)
    return checks


def _layer(case: Case, device: torch.device, folder: Path) -> Mapping[str, float]:
    """Time a layer beside its rivals, into `bench.json`; return ratios and the share of the device's peak."""
    rows = measure(case, device, repeats=10, only=_RIVALS)
    size = SIZES[case.size]
    path = folder / "bench.json"
    bench = Bench.read(path) if path.exists() else Bench()
    timed = BenchCase(
        size=case.size,
        d_model=size.d_model,
        d_hidden=size.d_hidden,
        experts=case.experts,
        tokens=case.tokens,
        precision=case.precision,
        repeats=10,
        environment=current_environment(device),
        rows=rows,
    )
    others = [one for one in bench.cases if one.key != timed.key]
    write_json(path, bench.model_copy(update={"cases": [*others, timed]}).to_json())
    at_top_2 = {row.implementation: row for row in rows if row.share_top1 == 0}
    ours = at_top_2["grouped"]
    flops = 6 * size.parameters * ours.rows
    numbers = {
        "milliseconds": 1000 * ours.both_seconds,
        "share of the rate of one product": flops / ours.both_seconds / _product_rate(device),
    }
    for name in _RIVALS[1:]:
        if name in at_top_2:
            numbers[f"over {name}"] = ours.both_seconds / at_top_2[name].both_seconds
    return numbers


def _product_rate(device: torch.device) -> float:
    """Measure the FLOP/s of one large product in bf16, median of ten."""
    size = 8192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    watch, seconds = Stopwatch(device), []
    for _ in range(13):
        with watch:
            left @ right
        seconds.append(watch.seconds)
    return 2 * size**3 / statistics.median(seconds[3:])


def _parity(device: torch.device) -> Mapping[str, float]:
    """Compare outputs and gradients in fp32 and in bf16 with the reference on the CPU."""
    case = Case(size="bert", tokens=512, experts=16, precision="fp32")
    cpu = torch.device("cpu")
    expected = _gradients(loop.forward, layer_weights(case, cpu), case, cpu, torch.float32)
    numbers = {}
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        ours = _gradients(
            grouped.forward, _moved(layer_weights(case, cpu), device, dtype), case, device, dtype
        )
        worst = max(
            float((one.float().cpu() - other).norm() / other.norm())
            for one, other in zip(ours, expected, strict=True)
        )
        numbers[f"largest relative difference, {dtype}".replace("torch.", "")] = worst
        assert worst < limit, f"{dtype}: differs by {worst:.2g}, at most {limit:g} is rounding"
    return numbers


def _idle(device: torch.device) -> Mapping[str, float]:
    """Check that an expert without tokens gets gradients of exactly 0, whatever its weights are."""
    case = Case(size="bert", tokens=2, experts=16, precision="bf16")
    weights = layer_weights(case, device)
    routing = forced_routing(2, 16, 1.0, torch.bfloat16, device)
    idle = [expert for expert, load in enumerate(routing.load_E.tolist()) if load == 0]
    with torch.no_grad():
        weights.w1[idle] = torch.nan
    gradients = _gradients(grouped.forward, weights, case, device, torch.bfloat16)
    largest = max(float(gradient[idle].abs().max()) for gradient in gradients[2:])
    assert largest == 0, f"largest gradient of an idle expert {largest:g}"
    return {"idle experts": len(idle)}


def _moved(weights: FFN, device: torch.device, dtype: torch.dtype) -> FFN:
    return weights.map(lambda part: part.detach().to(device, dtype).requires_grad_())


def _gradients(
    forward: Callable[..., Tensor], weights: FFN, case: Case, device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Return the output and the gradients of the input and of the stacked weights."""
    routing = forced_routing(case.tokens, case.experts, 0.5 if case.tokens > 2 else 1.0, dtype, device)
    generator = torch.Generator().manual_seed(3)
    x_TD = torch.randn(case.tokens, SIZES[case.size].d_model, generator=generator).to(device, dtype)
    x_TD.requires_grad_()
    y_TD = forward(x_TD, routing, weights)
    inputs = (x_TD, *weights.tensors)
    return [y_TD.detach(), *torch.autograd.grad(y_TD, inputs, torch.ones_like(y_TD))]


def _step(task: str, device: torch.device) -> Mapping[str, float]:
    """Train some steps of a paper model on random tokens, upcycled from random weights, with top-2 gating."""
    config, _ = resolve(
        task=task, scale="paper", gate="top-2", seed=0, data=None, model=None, overrides={}, results=Path()
    )
    model = _model(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batch = _batch(config, model, device)
    watch, seconds = Stopwatch(device), []
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(_STEPS):
        with watch:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds.append(watch.seconds)
        assert torch.isfinite(loss), f"loss {float(loss)}"
    tokens = sum(tensor.numel() for name, tensor in batch.items() if name.endswith("input_ids"))
    return {
        "milliseconds": 1000 * statistics.median(seconds[1:]),
        "tokens per second": tokens / statistics.median(seconds[1:]),
        "peak memory, GB": torch.cuda.max_memory_allocated(device) / 1e9,
        "parameters, millions": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
    }


def _model(config: RunConfig) -> torch.nn.Module:
    """Build a paper model with random weights, with gradient checkpointing, and convert it."""
    model = fresh_model(config, config.model.options)
    settings = replace(settings_of(config), experts=replace(config.experts, init="upcycle"))
    convert.convert(model, settings, torch.device("cuda"))
    new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})
    return model.train()


def _batch(config: RunConfig, model: torch.nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Draw a batch of the run's length; 4,096 positions, or eight sequences."""
    length = config.data.max_length
    rows = max(1, (config.training.batch_tokens or 8 * length) // length)
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(5, 20000, (rows, length), generator=generator).to(device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if hasattr(model.config, "num_labels") and model.__class__.__name__.endswith("SequenceClassification"):
        return {**batch, "labels": ids[:, 0] % 2}
    if getattr(model.config, "is_encoder_decoder", False):
        return {**batch, "decoder_input_ids": ids, "labels": ids}
    return {**batch, "labels": ids}


if __name__ == "__main__":
    sys.exit(main())
