"""Estimate steps, tokens, parameters, FLOPs, time and memory of a run without training it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from repro.config import RunConfig
from repro.machine import peak_memory_bytes
from repro.moe import convert
from repro.moe.backbones.base import load as load_backbone
from repro.moe.flops import Architecture
from repro.moe.gates.base import load as load_gate
from repro.moe.initialize import sample_routing
from repro.moe.volume import Volume
from repro.results.files import RunPaths
from repro.run.model import model_options, settings_of
from repro.run.setup import Examples
from repro.tasks.base import load as load_task
from repro.training.curriculum import TrainingData, epoch_steps
from repro.training.schedule import Budget
from repro.training.state import TrainingState

_META = torch.device("meta")
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")
"""Names of the option in the families. With it attention is not fused: three numbers a pair are kept."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost of one run in one process.

    Time and memory are rough, as are the FLOPs of adaptive gates; tokens are exact for whole epochs.
    """

    steps: int
    """Of the trunk up to its margin, and of the cooldown; a trunk may go on to a target."""
    tokens: int
    parameters: int
    flops: float
    """Of the forward passes of training."""
    seconds: float
    memory_bytes: float


def sizes(config: RunConfig, options: Mapping[str, Any]) -> tuple[Architecture, int]:
    """Convert a model without weights, and return its architecture and number of parameters.

    Args:
        options: of the Hugging Face configuration class, vocabulary included.
    """
    task = load_task(config.task)
    backbone = load_backbone(config.model.backbone)
    with _META:
        model = backbone.HEADS[task.HEAD](backbone.CONFIG(**options, **task.MODEL_OPTIONS))
    architecture = convert.convert(model, settings_of(config), _META)
    return architecture, sum(parameter.numel() for parameter in model.parameters())


def mean_experts(config: RunConfig, d_model: int) -> float:
    """Return the experts per token of a fresh gate on layer-normed input; 0 for a dense model."""
    gate_class = load_gate(config.gate).Gate
    if gate_class is None:
        return 0.0
    torch.manual_seed(0)
    gate = gate_class(config.gate_options, d_model, config.experts.count)
    return float(sample_routing(gate, torch.nn.LayerNorm(d_model)).count_T.double().mean())


def estimate(config: RunConfig, paths: RunPaths, examples: Examples, speed: Callable[[], float]) -> Estimate:
    """Plan the batches of the first epoch and count.

    Time: three forward passes' FLOPs (forward and backward) at half of the measured speed of matrix
    products, and seven passes of the optimiser and the gradients over all parameters at 10 GB/s.
    Memory: what this process takes already, parameters, gradients and two moments, and the activations of
    one batch. What the allocator holds back comes on top: runs took up to 1.6 times as much.

    Args:
        speed: measures the FLOP/s of this machine.
    """
    task, train = examples.task, examples.features["train"]
    data = TrainingData(task=task, train=train)
    batches = epoch_steps(config, data, TrainingState(), 1)
    budget = Budget.of(config.training, len(batches))
    one_epoch = Volume()
    positions = pairs = 0
    for step in batches:
        for indices in step:
            masks = task.masks(task.collate([train[index] for index in indices]))
            lengths = {stack: mask.sum(1).tolist() for stack, mask in masks.items()}
            one_epoch += Volume.of(lengths)
            positions = max(positions, sum(len(row) * max(row) for row in lengths.values()))
            pairs = max(pairs, sum(len(row) * max(row) ** 2 for row in lengths.values()))
    options = {**_checkpoint_options(config, paths), **model_options(config, task.tokenizer)}
    architecture, parameters = sizes(config, options)
    width = architecture.ffns[0].d_model
    experts = mean_experts(config, width)
    share = budget.total_steps / len(batches)
    macs = architecture.analytic_macs(one_epoch, experts)
    hidden = 3 * max(experts, 1.0) * sum(ffn.d_hidden for ffn in architecture.ffns)
    activations = positions * (hidden + 16 * width * len(architecture.ffns) + 3 * _vocabulary(architecture))
    if any(getattr(architecture.config, name, 0) for name in _ATTENTION_DROPOUT):
        heads = architecture.config.num_attention_heads * architecture.config.num_hidden_layers
        activations += 3 * heads * pairs
    taken = 0 if torch.cuda.is_available() else peak_memory_bytes(torch.device("cpu"))
    return Estimate(
        steps=budget.total_steps,
        tokens=round(one_epoch.tokens * share),
        parameters=parameters,
        flops=2 * macs * share,
        seconds=3 * 2 * macs * share / (0.5 * speed()) + budget.total_steps * 7 * 4 * parameters / 10e9,
        memory_bytes=taken + 4 * (4 * parameters + activations),
    )


def _checkpoint_options(config: RunConfig, paths: RunPaths) -> Mapping[str, Any]:
    """Read the configuration of the checkpoint that a run starts from, if it does."""
    if config.model.checkpoint is None:
        return {}
    configuration = load_backbone(config.model.backbone).CONFIG
    options: Mapping[str, Any] = configuration.from_pretrained(
        paths.model or config.model.checkpoint
    ).to_dict()
    return options


def _vocabulary(architecture: Architecture) -> int:
    """Return the columns of the logits of every position; 0 where one label is predicted."""
    generates = architecture.head in ("causal-language-model", "sequence-to-sequence")
    return int(architecture.config.vocab_size) if generates else 0


def matmul_speed(device: torch.device) -> float:
    """Measure the FLOP/s of a medium matrix product in fp32, best of three."""
    size = 1024
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    best = math.inf
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        float((left @ right)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
