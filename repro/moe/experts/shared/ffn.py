"""What back-ends share: the activation between the two matrices, the type of products, tokens' bags."""

import torch
from torch import Tensor

from repro.errors import UserError, unknown
from repro.moe.routing import Routing

_HUGGING_FACE_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def activation_name(hugging_face_name: str) -> str:
    """Translate the name of an activation in a Hugging Face configuration.

    Raises:
        UserError: experts cannot use that activation.
    """
    if hugging_face_name not in _HUGGING_FACE_NAMES:
        raise UserError(unknown("activation", hugging_face_name, _HUGGING_FACE_NAMES))
    return _HUGGING_FACE_NAMES[hugging_face_name]


def activate(pre: Tensor, activation: str) -> Tensor:
    """Apply the activation elementwise."""
    if activation == "relu":
        return torch.relu(pre)
    return torch.nn.functional.gelu(pre, approximate=_approximate(activation))


def activate_into(out: Tensor, pre: Tensor, activation: str) -> None:
    """Write the activation to `out`; without gradient."""
    if activation == "relu":
        torch.clamp_min(pre, 0, out=out)
    else:
        torch.ops.aten.gelu.out(pre, approximate=_approximate(activation), out=out)


def activate_backward_into(grad: Tensor, pre: Tensor, activation: str) -> None:
    """Turn the gradient at the activation's output into that at its input, in place."""
    if activation == "relu":
        grad.mul_(pre > 0)
    else:
        approximate = _approximate(activation)
        torch.ops.aten.gelu_backward.grad_input(grad, pre, approximate=approximate, grad_input=grad)


def _approximate(activation: str) -> str:
    return "tanh" if activation == "gelu_tanh" else "none"


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
