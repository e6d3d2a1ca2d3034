"""Tokens sorted by expert, one pass over the groups, no copy of the weights: the fast back-end."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repro.moe.experts.shared.rows import compute_dtype, sum_bags, token_bags
from repro.moe.experts.shared.side_by_side import Group, each_group
from repro.moe.ffn import FFN, hidden_backward, hidden_into
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


def forward(x_TD: Tensor, routing: Routing, weights: FFN) -> Tensor:
    """Multiply once per expert and matrix on the CPU; by one grouped product on a GPU in bf16."""
    dtype = compute_dtype(x_TD)
    order_A, starts_T = token_bags(routing)
    if x_TD.device.type == "cuda" and dtype == torch.bfloat16:
        return grouped_product(x_TD.to(dtype), routing, weights, order_A, starts_T).to(x_TD.dtype)
    load, rows = torch.stack([routing.load_E, _filled(routing.load_E, dtype)]).tolist()
    y_TD: Tensor = _GroupedFFN.apply(  # type: ignore[no-untyped-call]
        x_TD.to(dtype),
        routing.weight_A.to(dtype),
        weights.w1,
        weights.b1,
        weights.w2,
        weights.b2,
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
        w1_EHD: Tensor,
        b1_EH: Tensor | None,
        w2_EDF: Tensor,
        b2_ED: Tensor | None,
        token_A: Tensor,
        slot_A: Tensor | None,
        order_A: Tensor,
        starts_T: Tensor,
        rows: list[int],
        activation: str,
    ) -> Tensor:
        # Of master weights in fp32, the products take copies in bf16; gradients are of the masters' type.
        ctx.parameter_dtype = w1_EHD.dtype
        weights = FFN(w1_EHD, b1_EH, w2_EDF, b2_ED, activation).map(lambda part: part.to(x_TD.dtype))
        token_R, weight_R = token_A, weight_A
        if slot_A is not None:
            token_R = token_A[:1].repeat(sum(rows)).index_copy_(0, slot_A, token_A)
            weight_R = weight_A.new_zeros(sum(rows)).index_copy_(0, slot_A, weight_A)
            order_A = slot_A.index_select(0, order_A)
        x_RD = x_TD.index_select(0, token_R)
        pre_RH = x_RD.new_empty(len(x_RD), weights.w1.shape[1])
        hidden_RF, output_RD = x_RD.new_empty(len(x_RD), weights.d_hidden), torch.empty_like(x_RD)

        def compute(expert: int, part: slice) -> None:
            _affine_into(pre_RH[part], x_RD[part], weights.w1, weights.b1, expert)
            hidden_into(hidden_RF[part], pre_RH[part], activation)
            _affine_into(output_RD[part], hidden_RF[part], weights.w2, weights.b2, expert)

        each_group(compute, _groups(rows), x_RD.device)
        saved = (x_RD, pre_RH, hidden_RF, output_RD, token_R, weight_R, weights.w1, weights.w2)
        ctx.save_for_backward(*saved, slot_A, order_A, starts_T)
        ctx.rows, ctx.activation, ctx.biased = rows, activation, (b1_EH is not None, b2_ED is not None)
        return sum_bags(output_RD, order_A, starts_T, weight_R.index_select(0, order_A))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, pre_RH, hidden_RF, output_RD, token_R, weight_R, w1_EHD, w2_EDF, slot_A, order_A, starts_T = (
            ctx.saved_tensors
        )
        groups = _groups(ctx.rows)
        dtype = ctx.parameter_dtype
        grad_w1_EHD, grad_w2_EDF = (torch.empty_like(weight, dtype=dtype) for weight in (w1_EHD, w2_EDF))
        grad_b1_EH, grad_b2_ED = (
            weight.new_zeros(weight.shape[:2], dtype=dtype) if is_there else None
            for weight, is_there in zip((w1_EHD, w2_EDF), ctx.biased, strict=True)
        )
        for idle in set(range(len(ctx.rows))) - {expert for expert, _ in groups}:
            grad_w1_EHD[idle].zero_()
            grad_w2_EDF[idle].zero_()

        grad_RD = grad_y_TD.index_select(0, token_R)
        grad_weight_R = (grad_RD * output_RD).sum(1)
        grad_RD.mul_(weight_R[:, None])
        grad_x_RD = torch.empty_like(x_RD)

        def compute(expert: int, part: slice) -> None:
            _affine_backward_into(grad_w2_EDF, grad_b2_ED, grad_RD[part], hidden_RF[part], expert)
            grad_NF = torch.mm(grad_RD[part], w2_EDF[expert])
            grad_NH = hidden_backward(grad_NF, pre_RH[part], ctx.activation)
            _affine_backward_into(grad_w1_EHD, grad_b1_EH, grad_NH, x_RD[part], expert)
            torch.mm(grad_NH, w1_EHD[expert], out=grad_x_RD[part])

        each_group(compute, groups, x_RD.device)
        grad_x_TD = sum_bags(grad_x_RD, order_A, starts_T, None)
        grad_weight_A = grad_weight_R if slot_A is None else grad_weight_R.index_select(0, slot_A)
        grads = (grad_x_TD, grad_weight_A, grad_w1_EHD, grad_b1_EH, grad_w2_EDF, grad_b2_ED)
        return *grads, None, None, None, None, None, None


def _affine_into(out: Tensor, rows: Tensor, weights: Tensor, biases: Tensor | None, expert: int) -> None:
    """Write rows times one of stacked weights, plus its bias."""
    if biases is None:
        torch.mm(rows, weights[expert].t(), out=out)
    else:
        torch.addmm(biases[expert], rows, weights[expert].t(), out=out)


def _affine_backward_into(
    grads: Tensor, bias_grads: Tensor | None, grad_out: Tensor, rows: Tensor, expert: int
) -> None:
    """Write the gradients of one of stacked weights, and of its bias."""
    if grad_out.dtype == grads.dtype:
        torch.mm(grad_out.t(), rows, out=grads[expert])
    else:
        grads[expert].copy_(grad_out.t() @ rows)
    if bias_grads is not None:
        torch.sum(grad_out, 0, dtype=bias_grads.dtype, out=bias_grads[expert])


def grouped_product(
    x_TD: Tensor, routing: Routing, weights: FFN, order_A: Tensor, starts_T: Tensor
) -> Tensor:
    """Compute `forward` by `torch.nn.functional.grouped_mm`: no host synchronisation, autograd's backward."""
    weights = weights.map(lambda part: part.to(x_TD.dtype))
    offsets_E = routing.load_E.cumsum(0).to(torch.int32)

    def affine(rows_AD: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = torch.nn.functional.grouped_mm(rows_AD, weight.transpose(1, 2), offs=offsets_E)
        return product if bias is None else product + bias.index_select(0, routing.expert_A)

    x_AD = x_TD.index_select(0, routing.token_A)
    hidden_AF = weights.hidden(affine(x_AD, weights.w1, weights.b1))
    output_AD = affine(hidden_AF, weights.w2, weights.b2)
    weight_A = routing.weight_A.to(x_TD.dtype).index_select(0, order_A)
    return sum_bags(output_AD, order_A, starts_T, weight_A)
