"""Time training steps of a model with random weights on random tokens: no data, no checkpoint."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from repro.config import RunConfig
from repro.machine import Stopwatch, peak_memory_bytes, reset_peak_memory
from repro.moe import convert
from repro.moe.routing import record_routing
from repro.run.model import fresh_model, settings_of
from repro.tasks.base import load as load_task
from repro.training.optimizer import make_optimizer
from repro.training.placement import checkpoint_activations

_STEPS = 5
"""The first warms up."""


def time_step(config: RunConfig, device: torch.device) -> Mapping[str, float]:
    """Do steps of one batch in bf16 over masters in fp32, as training does, and return what they took.

    Raises:
        AssertionError: the loss is not finite, or a parameter has no gradient.
        UserError: the model cannot be built.
    """
    torch.manual_seed(config.seed)
    with device:
        model = fresh_model(config, config.model.options)
    convert.convert(model, settings_of(config), device)
    if config.training.gradient_checkpointing:
        checkpoint_activations(model)
    model.to(device).train()
    optimizer = make_optimizer(model, config.training)
    batch = random_batch(config, model.get_input_embeddings().num_embeddings, device)
    reset_peak_memory(device)
    watch, seconds = Stopwatch(device), []
    for _ in range(_STEPS):
        with watch:
            loss = _step(model, optimizer, batch, config)
        seconds.append(watch.seconds)
        assert math.isfinite(loss), f"the loss is {loss}"
    parameters = dict(model.named_parameters())
    without = [name for name, parameter in parameters.items() if parameter.grad is None]
    assert not without, f"no gradient for {', '.join(without)}"
    median = statistics.median(seconds[1:])
    return {
        "milliseconds": 1000 * median,
        "tokens per second": _tokens(batch) / median,
        "peak memory, GB": peak_memory_bytes(device) / 1e9,
        "parameters, millions": sum(parameter.numel() for parameter in parameters.values()) / 1e6,
    }


def random_batch(config: RunConfig, vocabulary: int, device: torch.device) -> dict[str, Tensor]:
    """Draw a batch of the run's size, all of the greatest length, without padding.

    Args:
        vocabulary: tokens are below this number.
    """
    generator = torch.Generator().manual_seed(4)
    length, head = config.data.max_length, load_task(config.task).HEAD
    rows = config.training.batch_size or max(1, (config.training.batch_tokens or length) // length)

    def drawn(*shape: int, below: int = vocabulary) -> Tensor:
        return torch.randint(below, shape, generator=generator).to(device)

    ids = drawn(rows, length)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if head == "sequence-classification":
        return {**batch, "labels": drawn(rows, below=2)}
    if head == "sequence-to-sequence":
        target = drawn(rows, min(length, config.task_options.max_target_length))
        mask = torch.ones_like(target)
        return {**batch, "decoder_input_ids": target, "decoder_attention_mask": mask, "labels": target}
    return {**batch, "labels": ids}


def _step(model: Any, optimizer: Optimizer, batch: Mapping[str, Tensor], config: RunConfig) -> float:
    optimizer.zero_grad()
    device = next(iter(batch.values())).device
    with record_routing(model) as tape, torch.autocast(device.type, torch.bfloat16):
        loss = model(**batch).loss
    loss = loss + tape.loss()
    loss.backward()
    if config.training.clip_norm is not None:
        clip_grad_norm_(model.parameters(), config.training.clip_norm)
    optimizer.step()
    return float(loss.detach())


def _tokens(batch: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for name, tensor in batch.items() if name.endswith("input_ids"))
