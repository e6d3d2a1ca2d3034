"""Tokens sorted by expert, one pass over the groups, no copy of the weights: the fast back-end."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repro.moe.experts.base import FFNWeights
from repro.moe.experts.shared.ffn import (
    activate,
    activate_backward_into,
    activate_into,
    compute_dtype,
    sum_bags,
    token_bags,
)
from repro.moe.experts.shared.side_by_side import Group, each_group
from repro.moe.routing import Routing

_BF16_ROWS = 16
"""In bf16 on the CPU every group has a multiple of this many rows: oneDNN compiles one kernel for each
shape of a bf16 product, which takes longer than the product, and its tiles have 16 rows anyway."""


def available(device: torch.device) -> str | None:
    """Return None: it runs everywhere."""
    return None


def rows_computed(load_E: Tensor, dtype: torch.dtype) -> Tensor:
    """Count the assignments; in bf16 on the CPU every group is filled up to a multiple of 16 rows."""
    return _filled(load_E, dtype).sum()


def forward(x_TD: Tensor, routing: Routing, weights: FFNWeights) -> Tensor:
    """Multiply once per expert and matrix on the CPU; by one grouped product on a GPU in bf16."""
    dtype = compute_dtype(x_TD)
    order_A, starts_T = token_bags(routing)
    if x_TD.device.type == "cuda" and dtype == torch.bfloat16:
        return grouped_product(x_TD.to(dtype), routing, weights, order_A, starts_T).to(x_TD.dtype)
    load, rows = torch.stack([routing.load_E, _filled(routing.load_E, dtype)]).tolist()
    y_TD: Tensor = _GroupedFFN.apply(  # type: ignore[no-untyped-call]
        x_TD.to(dtype),
        routing.weight_A.to(dtype),
        weights.w1_EFD,
        weights.b1_EF,
        weights.w2_EDF,
        weights.b2_ED,
        routing.token_A,
        None if rows == load else _slots(load, rows),
        order_A,
        starts_T,
        rows,
        weights.activation,
    )
    return y_TD.to(x_TD.dtype)


def _filled(load_E: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows of each expert's group: its assignments, and in bf16 on the CPU some idle ones."""
    if load_E.device.type != "cpu" or dtype != torch.bfloat16:
        return load_E
    return -(-load_E // _BF16_ROWS) * _BF16_ROWS


def _slots(load: list[int], rows: list[int]) -> Tensor:
    """Row of each assignment among the filled-up groups, (A,)."""
    sizes_E, rows_E = torch.tensor(load), torch.tensor(rows)
    idle_before_E = (rows_E - sizes_E).cumsum(0) - (rows_E - sizes_E)
    return torch.arange(sum(load)) + idle_before_E.repeat_interleave(sizes_E)


def _groups(rows: list[int]) -> list[Group]:
    """List the experts that have rows, each with their places."""
    groups: list[Group] = []
    start = 0
    for expert, size in enumerate(rows):
        if size:
            groups.append((expert, slice(start, start + size)))
        start += size
    return groups


class _GroupedFFN(torch.autograd.Function):
    """All experts in one node of the graph: gradients of the stacked weights are written in place.

    Autograd's own path through `w[e]` would allocate and add a full-size gradient per expert.
    Idle rows repeat a routed token and have weight 0, so they change neither values nor gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weight_A: Tensor,
        w1_EFD: Tensor,
        b1_EF: Tensor,
        w2_EDF: Tensor,
        b2_ED: Tensor,
        token_A: Tensor,
        slot_A: Tensor | None,
        order_A: Tensor,
        starts_T: Tensor,
        rows: list[int],
        activation: str,
    ) -> Tensor:
        dtype = x_TD.dtype
        # Of master weights in fp32, the products take copies in bf16; gradients are of the masters' type.
        ctx.parameter_dtype = w1_EFD.dtype
        w1_EFD, b1_EF, w2_EDF, b2_ED = (tensor.to(dtype) for tensor in (w1_EFD, b1_EF, w2_EDF, b2_ED))
        token_R, weight_R = token_A, weight_A
        if slot_A is not None:
            token_R = token_A[:1].repeat(sum(rows)).index_copy_(0, slot_A, token_A)
            weight_R = weight_A.new_zeros(sum(rows)).index_copy_(0, slot_A, weight_A)
            order_A = slot_A.index_select(0, order_A)
        x_RD = x_TD.index_select(0, token_R)
        pre_RF = x_RD.new_empty(x_RD.shape[0], w1_EFD.shape[1])
        hidden_RF, output_RD = torch.empty_like(pre_RF), torch.empty_like(x_RD)

        def compute(expert: int, part: slice) -> None:
            torch.addmm(b1_EF[expert], x_RD[part], w1_EFD[expert].t(), out=pre_RF[part])
            activate_into(hidden_RF[part], pre_RF[part], activation)
            torch.addmm(b2_ED[expert], hidden_RF[part], w2_EDF[expert].t(), out=output_RD[part])

        each_group(compute, _groups(rows), x_RD.device)
        ctx.save_for_backward(
            x_RD, pre_RF, hidden_RF, output_RD, token_R, weight_R, w1_EFD, w2_EDF, slot_A, order_A, starts_T
        )
        ctx.rows, ctx.activation = rows, activation
        return sum_bags(output_RD, order_A, starts_T, weight_R.index_select(0, order_A))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, pre_RF, hidden_RF, output_RD, token_R, weight_R, w1_EFD, w2_EDF, slot_A, order_A, starts_T = (
            ctx.saved_tensors
        )
        groups = _groups(ctx.rows)
        dtype = ctx.parameter_dtype
        grad_w1_EFD, grad_w2_EDF = (
            torch.empty_like(w1_EFD, dtype=dtype),
            torch.empty_like(w2_EDF, dtype=dtype),
        )
        grad_b1_EF = w1_EFD.new_zeros(w1_EFD.shape[:2], dtype=dtype)
        grad_b2_ED = w2_EDF.new_zeros(w2_EDF.shape[:2], dtype=dtype)
        for idle in set(range(len(ctx.rows))) - {expert for expert, _ in groups}:
            grad_w1_EFD[idle].zero_()
            grad_w2_EDF[idle].zero_()

        grad_RD = grad_y_TD.index_select(0, token_R)
        grad_weight_R = (grad_RD * output_RD).sum(1)
        grad_RD.mul_(weight_R[:, None])
        grad_x_RD = torch.empty_like(x_RD)

        def compute(expert: int, part: slice) -> None:
            _write_product(grad_RD[part].t(), hidden_RF[part], grad_w2_EDF[expert])
            torch.sum(grad_RD[part], 0, dtype=dtype, out=grad_b2_ED[expert])
            grad_NF = torch.mm(grad_RD[part], w2_EDF[expert])
            activate_backward_into(grad_NF, pre_RF[part], ctx.activation)
            _write_product(grad_NF.t(), x_RD[part], grad_w1_EFD[expert])
            torch.sum(grad_NF, 0, dtype=dtype, out=grad_b1_EF[expert])
            torch.mm(grad_NF, w1_EFD[expert], out=grad_x_RD[part])

        each_group(compute, groups, x_RD.device)
        grad_x_TD = sum_bags(grad_x_RD, order_A, starts_T, None)
        grad_weight_A = grad_weight_R if slot_A is None else grad_weight_R.index_select(0, slot_A)
        grads = (grad_x_TD, grad_weight_A, grad_w1_EFD, grad_b1_EF, grad_w2_EDF, grad_b2_ED)
        return *grads, None, None, None, None, None, None


def _write_product(left: Tensor, right: Tensor, out: Tensor) -> None:
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def grouped_product(
    x_TD: Tensor, routing: Routing, weights: FFNWeights, order_A: Tensor, starts_T: Tensor
) -> Tensor:
    """Compute `forward` by `torch.nn.functional.grouped_mm`: no host synchronisation, autograd's backward."""
    dtype = x_TD.dtype
    offsets_E = routing.load_E.cumsum(0).to(torch.int32)
    x_AD = x_TD.index_select(0, routing.token_A)
    w1_EDF = weights.w1_EFD.to(dtype).transpose(1, 2)
    w2_EFD = weights.w2_EDF.to(dtype).transpose(1, 2)
    pre_AF = torch.nn.functional.grouped_mm(x_AD, w1_EDF, offs=offsets_E)
    pre_AF = pre_AF + weights.b1_EF.to(dtype).index_select(0, routing.expert_A)
    hidden_AF = activate(pre_AF, weights.activation)
    output_AD = torch.nn.functional.grouped_mm(hidden_AF, w2_EFD, offs=offsets_E)
    output_AD = output_AD + weights.b2_ED.to(dtype).index_select(0, routing.expert_A)
    return sum_bags(output_AD, order_A, starts_T, routing.weight_A.to(dtype).index_select(0, order_A))
