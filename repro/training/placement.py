"""The model on the processes of a launch: what each of them holds, and how gradients are added up.

Two ways to hold what is no expert: a copy in every process (DistributedDataParallel), or a share of every
tensor (`fully_shard`). Experts are copied with the rest, or spread (`repro.moe.spread`). Spread ones
are plain tensors, for of plain and distributed tensors together PyTorch computes no norm.

Every process scales its loss so that the mean over processes is that of the whole batch. Gradients of spread
experts come together by the exchange of tokens, so they are summed, and divided here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from inspect import signature

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.checkpoint import checkpoint
from transformers import GenerationMixin

from repro.config import RunConfig
from repro.errors import UserError
from repro.moe.gates.base import load as load_gate
from repro.moe.layer import Experts, moe_layers
from repro.moe.lora import count_whole, keep_share, plain_experts
from repro.moe.processes import batch_over, mesh_of
from repro.moe.spread import ExchangeTotals, Spread


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A model that is ready to train on all processes."""

    accelerator: Accelerator
    plain: nn.Module
    """Holds the parameters; evaluation calls it."""
    model: nn.Module
    """What a training step calls: it adds up gradients over processes."""
    mesh: DeviceMesh | None
    """None for one process."""
    parameters: int
    """Of the whole model, whoever holds them, without low-rank additions."""
    global_balance: bool
    """Whether gates balance, and move their states, over the whole batch; else each process over its part."""

    @property
    def call_options(self) -> dict[str, bool]:
        """Return the arguments of a training step beside a batch: no keys and values are cached."""
        return {"use_cache": False} if "use_cache" in signature(self.plain.forward).parameters else {}

    @property
    def processes(self) -> int:
        """Processes of the launch."""
        return int(self.accelerator.num_processes)

    @property
    def needs_company(self) -> bool:
        """Whether no process can call the model alone, in evaluation either."""
        return needs_company(self.plain)

    @property
    def balance_copies(self) -> int:
        """Processes that compute the same balance loss, each with the gradient of its own tokens."""
        return self.processes if self.global_balance else 1

    def spread_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of spread experts: each process has its own."""
        return _spread_parameters(self.plain)

    def batch(self) -> AbstractContextManager[None]:
        """Return the context of the forward and backward passes over a batch."""
        return batch_over(dist.group.WORLD if self.processes > 1 and self.global_balance else None)

    @contextlib.contextmanager
    def gradients(self, *, last: bool) -> Iterator[None]:
        """Add up copied gradients over processes once a step, with its last backward pass.

        Sharded ones are added up with every pass, or each process would have to keep whole gradients.
        """
        if isinstance(self.model, DistributedDataParallel) and not last:
            with self.model.no_sync():
                yield
        else:
            yield

    def finish_gradients(self) -> Tensor:
        """Add up what the backward passes did not; return the joint norm of all gradients, a scalar."""
        spread = self.spread_parameters()
        for parameter in (weight for weight in spread if weight.requires_grad):
            assert self.mesh is not None
            # An expert that got no token here has a gradient of zeros, or none if no process called it.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.div_(self.processes)
            if self.mesh["replicate"].size() > 1:
                dist.all_reduce(parameter.grad, group=self.mesh.get_group("replicate"))
        of_spread = set(spread)
        grads = [
            parameter.grad
            for parameter in self.plain.parameters()
            if parameter.grad is not None and parameter not in of_spread
        ]
        norm = _whole(get_total_norm(grads))
        if not spread:
            return norm
        squares = get_total_norm([weight.grad for weight in spread if weight.grad is not None]).square()
        assert self.mesh is not None
        dist.all_reduce(squares, group=self.mesh.get_group("ep"))
        return (norm.square() + squares).sqrt()

    def clip(self, norm: Tensor, limit: float) -> None:
        """Scale all gradients down to a joint norm of `limit`, given their norm before."""
        parameters = list(self.plain.parameters())
        clip_grads_with_norm_(
            [weight for weight in parameters if not isinstance(weight, DTensor)], limit, norm
        )
        sharded = [weight for weight in parameters if isinstance(weight, DTensor)]
        if sharded:
            whole = DTensor.from_local(norm, sharded[0].device_mesh, [Replicate()], run_check=False)
            clip_grads_with_norm_(sharded, limit, whole)

    def take_exchanges(self) -> list[ExchangeTotals]:
        """Return what was measured of exchanges since the last call, layer by layer; or nothing."""
        spreads = [module.spread for module in self.plain.modules() if isinstance(module, Experts)]
        return [spread.totals.take() for spread in spreads if spread and spread.totals]

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place."""
        if self.processes > 1:
            dist.all_reduce(values)
        return values


def exceeds(norm: float, limit: float | None) -> bool:
    """Tell whether gradients are to be scaled down.

    Those that keep to the limit are left alone: multiplying the gradients of 16 experts by 1 takes time.
    """
    return limit is not None and limit / (norm + 1e-6) < 1


def place(accelerator: Accelerator, model: nn.Module, config: RunConfig) -> Placement:
    """Place a model on the processes of a launch.

    Raises:
        UserError: experts cannot be spread so, or the gate needs whole batches.
    """
    processes = int(accelerator.num_processes)
    parameters = count_whole(model)
    parallel = parallel_of(config, processes)
    if config.training.gradient_checkpointing:
        checkpoint_activations(model)
    if processes == 1:
        model.to(accelerator.device)
        # Only for its precision: gradients need not be added up.
        wrapped = accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
        return Placement(
            accelerator=accelerator,
            plain=model,
            model=wrapped,
            mesh=None,
            parameters=parameters,
            global_balance=True,
        )
    mesh = mesh_of(processes, parallel, accelerator.device.type)
    if parallel > 1:
        spread_experts(model, mesh, measured=config.training.exchange_times)
    model.to(accelerator.device)  # and no expert of another process
    accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
    spread = set(_spread_parameters(model))
    if parallel > 1 or config.training.shard == "fsdp":
        _generate_together(model)
    if config.training.shard == "fsdp":
        _shard(model, accelerator.device.type, processes, spread)
        wrapped = model
    else:
        names = [name for name, parameter in model.named_parameters() if parameter in spread]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            model, names
        )
        wrapped = DistributedDataParallel(model, forward_sync_buffers=False)
    return Placement(
        accelerator=accelerator,
        plain=model,
        model=wrapped,
        mesh=mesh,
        parameters=parameters,
        global_balance=config.training.balance_over == "global",
    )


def parallel_of(config: RunConfig, processes: int) -> int:
    """Return over how many processes experts are spread: N of `experts.parallel`, or all that divide them.

    Raises:
        UserError: N does not divide the experts or the processes, or the gate cannot stand in several.
    """
    wanted, experts = config.experts.parallel, config.experts.count
    gate_class = load_gate(config.gate).Gate
    if gate_class is None:
        return 1
    if processes > 1 and gate_class.whole_batches:
        spelled = config.gate.replace("_", "-")
        raise UserError(
            f"--gate {spelled}: needs whole batches, and {processes} processes have parts of them:"
            f" {gate_class.whole_batches}; start one process"
        )
    if wanted is None:
        return processes if experts % processes == 0 else 1
    if processes == 1 and wanted > 1:
        raise UserError(
            f"experts.parallel: {wanted} processes are to share the experts, and this is one;"
            f" start it with torchrun --nproc-per-node {wanted}"
        )
    for what, number in (("experts", experts), ("processes", processes)):
        if number % wanted:
            divisors = ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)
            raise UserError(
                f"experts.parallel: {wanted} does not divide the {number} {what}; give one of {divisors}"
            )
    return wanted


def checkpoint_activations(model: nn.Module) -> None:
    """Let every layer of a model compute its activations again in the backward pass, in place.

    Not by transformers' own switch, which some models (FSMT) do not have.
    """
    for layer in _layers(model):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def spread_experts(model: nn.Module, mesh: DeviceMesh, *, measured: bool = False) -> None:
    """Keep a process's own share of the experts of every layer, and of what is added to them, in place.

    Args:
        measured: measure the exchanges of tokens.
    """
    ranks, own = mesh["ep"].size(), mesh["ep"].get_local_rank()
    for layer in moe_layers(model):
        module = plain_experts(layer.experts)
        held = module.w1.shape[0] // ranks
        mine = slice(own * held, (own + 1) * held)
        for name, weight in list(module.named_parameters()):
            kept = nn.Parameter(weight.detach()[mine].clone(), requires_grad=weight.requires_grad)
            setattr(module, name, kept)
        keep_share(layer.experts, mine)
        module.spread = Spread(group=mesh.get_group("ep"), totals=ExchangeTotals() if measured else None)


def _spread_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters of spread experts, and those that are added to them."""
    layers = [layer for layer in moe_layers(model) if plain_experts(layer.experts).spread]
    return [weight for layer in layers for weight in layer.experts.parameters()]


def needs_company(model: nn.Module) -> bool:
    """Whether no process can call a model alone: its experts, or all its tensors, are shared out."""
    return isinstance(model, FSDPModule) or any(
        isinstance(module, Experts) and module.spread is not None for module in model.modules()
    )


def _generate_together(model: nn.Module) -> None:
    """Let a model generate until the last process has its sequences, for none can call it alone."""
    if isinstance(model, GenerationMixin):
        vars(model)["generate"] = partial(model.generate, synced_gpus=True)


def _shard(model: nn.Module, device: str, processes: int, spread: set[nn.Parameter]) -> None:
    """Share out every tensor but those of spread experts, layer by layer."""
    mesh = init_device_mesh(device, (processes,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh, ignored_params=spread & set(layer.parameters()))
    fully_shard(model, mesh=mesh, ignored_params=spread)


def _layers(model: nn.Module) -> list[nn.Module]:
    """List the layers of all stacks of a model, which keep them in `ModuleList`s."""
    return [layer for stack in model.modules() if isinstance(stack, nn.ModuleList) for layer in stack]


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
