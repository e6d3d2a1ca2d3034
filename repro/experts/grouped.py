"""Tokens sorted by expert, one pass over the groups, no copy of the weights: the fast back-end."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from repro.experts._ffn import FFNWeights, activate, activate_backward, token_bags
from repro.routing import Routing


def available(device: torch.device) -> str | None:
    """Runs everywhere."""
    return None


def rows_computed(load: list[int]) -> int:
    """Only real assignments."""
    return sum(load)


def forward(x_TD: Tensor, routing: Routing, weights: FFNWeights) -> Tensor:
    """One matrix product per expert and matrix on the CPU; one grouped product on a GPU in bf16."""
    dtype = x_TD.dtype
    if torch.is_autocast_enabled(x_TD.device.type):
        dtype = torch.get_autocast_dtype(x_TD.device.type)
    order_A, starts_T = token_bags(routing)
    if x_TD.device.type == "cuda" and dtype == torch.bfloat16:
        return _grouped_mm(x_TD.to(dtype), routing, weights, order_A, starts_T).to(x_TD.dtype)
    y_TD: Tensor = _GroupedFFN.apply(  # type: ignore[no-untyped-call]
        x_TD.to(dtype),
        routing.weight_A.to(dtype),
        weights.w1_EFD,
        weights.b1_EF,
        weights.w2_EDF,
        weights.b2_ED,
        routing.token_A,
        order_A,
        starts_T,
        routing.load_E.tolist(),
        weights.activation,
    )
    return y_TD.to(x_TD.dtype)


def _groups(load: list[int]) -> list[tuple[int, slice]]:
    """The experts that have tokens, each with its rows among the assignments."""
    groups, start = [], 0
    for expert, size in enumerate(load):
        if size:
            groups.append((expert, slice(start, start + size)))
        start += size
    return groups


def _sum_bags(rows_AD: Tensor, order_A: Tensor, starts_T: Tensor, weight_A: Tensor) -> Tensor:
    """y_t = sum over the assignments a of token t of weight_a rows_a, in a fixed order."""
    if rows_AD.shape[0] == 0:
        # `embedding_bag` refuses an empty table; this keeps the (empty) gradients.
        zeros_TD = rows_AD.new_zeros(starts_T.numel(), rows_AD.shape[1])
        return zeros_TD.index_add(0, order_A, rows_AD * weight_A[:, None])
    return embedding_bag(
        order_A, rows_AD, starts_T, mode="sum", per_sample_weights=weight_A.index_select(0, order_A)
    )


class _GroupedFFN(torch.autograd.Function):
    """All experts in one node of the graph: gradients of the stacked weights are written in place.

    Autograd's own path through `w[e]` would allocate and add a full-size gradient per expert.
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
        order_A: Tensor,
        starts_T: Tensor,
        load: list[int],
        activation: str,
    ) -> Tensor:
        dtype = x_TD.dtype
        x_AD = x_TD.index_select(0, token_A)
        pre_AF = x_AD.new_empty(token_A.numel(), w1_EFD.shape[1])
        output_AD = torch.empty_like(x_AD)
        for expert, rows in _groups(load):
            w1_FD = w1_EFD[expert].to(dtype)
            torch.addmm(b1_EF[expert].to(dtype), x_AD[rows], w1_FD.t(), out=pre_AF[rows])
        hidden_AF = activate(pre_AF, activation)
        for expert, rows in _groups(load):
            w2_DF = w2_EDF[expert].to(dtype)
            torch.addmm(b2_ED[expert].to(dtype), hidden_AF[rows], w2_DF.t(), out=output_AD[rows])
        ctx.save_for_backward(
            x_AD, pre_AF, hidden_AF, output_AD, weight_A, w1_EFD, w2_EDF, token_A, order_A, starts_T
        )
        ctx.load, ctx.activation = load, activation
        return _sum_bags(output_AD, order_A, starts_T, weight_A)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y_TD: Tensor) -> tuple[Tensor | None, ...]:
        (
            x_AD,
            pre_AF,
            hidden_AF,
            output_AD,
            weight_A,
            w1_EFD,
            w2_EDF,
            token_A,
            order_A,
            starts_T,
        ) = ctx.saved_tensors
        dtype = x_AD.dtype
        groups = _groups(ctx.load)
        grad_w1_EFD, grad_w2_EDF = torch.empty_like(w1_EFD), torch.empty_like(w2_EDF)
        grad_b1_EF = w1_EFD.new_zeros(w1_EFD.shape[:2])
        grad_b2_ED = w2_EDF.new_zeros(w2_EDF.shape[:2])
        for idle in set(range(len(ctx.load))) - {expert for expert, _ in groups}:
            grad_w1_EFD[idle].zero_()
            grad_w2_EDF[idle].zero_()

        grad_rows_AD = grad_y_TD.index_select(0, token_A)
        grad_weight_A = (grad_rows_AD * output_AD).sum(1)
        grad_rows_AD.mul_(weight_A[:, None])
        grad_hidden_AF = torch.empty_like(hidden_AF)
        for expert, rows in groups:
            grad_ND = grad_rows_AD[rows]
            torch.mm(grad_ND, w2_EDF[expert].to(dtype), out=grad_hidden_AF[rows])
            _write_product(grad_ND.t(), hidden_AF[rows], grad_w2_EDF[expert])
            grad_b2_ED[expert] = grad_ND.sum(0)
        grad_pre_AF = activate_backward(grad_hidden_AF, pre_AF, ctx.activation)
        grad_x_AD = torch.empty_like(x_AD)
        for expert, rows in groups:
            grad_NF = grad_pre_AF[rows]
            torch.mm(grad_NF, w1_EFD[expert].to(dtype), out=grad_x_AD[rows])
            _write_product(grad_NF.t(), x_AD[rows], grad_w1_EFD[expert])
            grad_b1_EF[expert] = grad_NF.sum(0)
        grad_x_TD = _sum_bags(grad_x_AD, order_A, starts_T, torch.ones_like(weight_A))
        grads = (grad_x_TD, grad_weight_A, grad_w1_EFD, grad_b1_EF, grad_w2_EDF, grad_b2_ED)
        return *grads, None, None, None, None, None


def _write_product(left: Tensor, right: Tensor, out: Tensor) -> None:
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _grouped_mm(
    x_TD: Tensor, routing: Routing, weights: FFNWeights, order_A: Tensor, starts_T: Tensor
) -> Tensor:
    """The same with `torch.nn.functional.grouped_mm`: no host synchronisation, autograd's backward."""
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
    return _sum_bags(output_AD, order_A, starts_T, routing.weight_A.to(dtype))
