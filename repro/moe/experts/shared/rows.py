"""What back-ends share: the type of products, and a token's rows summed."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from repro.moe.routing import Routing


def compute_dtype(x_TD: Tensor) -> torch.dtype:
    """Return the type of the products of a layer with this input: the type of autocast where it is on."""
    device = x_TD.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_TD.dtype


def token_bags(routing: Routing) -> tuple[Tensor, Tensor]:
    """Group assignments by token: return their order, (A,), and where each token's group starts, (T,).

    Summing each group with `embedding_bag` combines expert outputs in a fixed order, for any number
    of experts per token, without a scatter.
    """
    order_A = torch.argsort(routing.token_A, stable=True)
    starts_T = routing.count_T.cumsum(0) - routing.count_T
    return order_A, starts_T


def sum_bags(rows_RD: Tensor, order_A: Tensor, starts_T: Tensor, weight_A: Tensor | None) -> Tensor:
    """y_t = sum over the rows r of token t of weight_r rows_r, in a fixed order.

    Args:
        order_A: the rows, token by token.
        starts_T: where each token's rows start in `order_A`.
        weight_A: weight of each of them; None for 1.
    """
    if order_A.numel() == 0:
        # `embedding_bag` refuses an empty table; this keeps the (empty) gradients.
        zeros_TD = rows_RD.new_zeros(starts_T.numel(), rows_RD.shape[1])
        return zeros_TD.index_add(0, order_A, rows_RD if weight_A is None else rows_RD * weight_A[:, None])
    return embedding_bag(order_A, rows_RD, starts_T, mode="sum", per_sample_weights=weight_A)


def combine(output_AD: Tensor, routing: Routing) -> Tensor:
    """Sum every token's expert outputs, each with its weight, (T, D); 0 for tokens without an expert.

    Args:
        output_AD: output of the expert of each assignment.
    """
    order_A, starts_T = token_bags(routing)
    weight_A = routing.weight_A.to(output_AD.dtype).index_select(0, order_A)
    return sum_bags(output_AD, order_A, starts_T, weight_A)
