"""What processes share that hold parts of one batch: sums over it, and who holds which experts.

The processes of a launch form a mesh of two axes. Along `ep` the experts of a layer are spread: each
process holds some of them, and tokens travel. Along `replicate` these shares are copied, and their gradients
added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


class _Batch:
    """The batch that is being computed, for all threads.

    Gradient checkpointing repeats layers in those of the backward pass.
    """

    group: dist.ProcessGroup | None = None


@contextmanager
def batch_over(group: dist.ProcessGroup | None) -> Iterator[None]:
    """Take the batches inside the block as parts of one, spread over the processes of a group.

    Every one of them has to do the same forward and backward passes there.

    Args:
        group: None for batches of this process alone.
    """
    before, _Batch.group = _Batch.group, group
    try:
        yield
    finally:
        _Batch.group = before


def sum_over_batch(*values: Tensor) -> Sequence[Tensor]:
    """Add up values over the parts of a batch; the values themselves if it is of this process alone.

    Each process takes the sum as its own value in the backward pass, whose gradients are then added up over
    processes, so that the gradient of a sum is that of its own part here.
    """
    if _Batch.group is None:
        return values
    own = torch.cat([value.reshape(-1).double() for value in values])
    flat: Tensor = _Sum.apply(own, _Batch.group)  # type: ignore[no-untyped-call]
    parts = torch.split(flat, [value.numel() for value in values])
    return [part.view(value.shape).to(value.dtype) for part, value in zip(parts, values, strict=True)]


def part_of_batch(value: Tensor) -> Tensor:
    """Return a value that every process of a batch computes alike, such as a loss of weights alone.

    Its gradient is shared out evenly, as gradients are added up over processes.
    """
    if _Batch.group is None:
        return value
    part = value / dist.get_world_size(_Batch.group)
    return part + (value - part).detach()


def gather_over_batch(values_T: Tensor, mask_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of all parts of a batch, and which of them are real; without gradients."""
    if _Batch.group is None:
        return values_T, mask_T
    longest = torch.tensor(len(values_T), device=values_T.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX, group=_Batch.group)
    own_T = values_T.new_zeros(int(longest), 2)
    own_T[: len(values_T)] = torch.stack([values_T, mask_T.to(values_T.dtype)], dim=1)
    parts = [torch.empty_like(own_T) for _ in range(dist.get_world_size(_Batch.group))]
    dist.all_gather(parts, own_T, group=_Batch.group)
    values, is_real = torch.cat(parts).unbind(1)
    return values, is_real.bool()


class _Sum(torch.autograd.Function):
    """Sum over processes, whose gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def mesh_of(processes: int, parallel: int, device: str) -> DeviceMesh:
    """Arrange the processes of a launch: neighbours hold different experts."""
    return init_device_mesh(device, (processes // parallel, parallel), mesh_dim_names=("replicate", "ep"))
