"""A feed-forward network as a value: one of a dense layer, or one for each expert, stacked; plain or gated.

Axis letters as in `routing`, and H: rows of the first matrix, F of a plain network and 2 F of a gated one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from repro.errors import UserError, unknown

_HUGGING_FACE_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True, eq=False)
class FFN:
    """Weights of one network, or of one for each expert, stacked along a first axis E.

    * Plain: W2 act(W1 x + b1) + b2 (paper eq. 1).
    * Gated: W_down (act(W_gate x) * (W_up x)) ("GLU Variants Improve Transformer", Shazeer 2020,
      https://arxiv.org/abs/2002.05202), with or without biases. `w1` holds the rows of W_gate, then those of
      W_up, and `w2` is W_down: `gate_up_proj` and `down_proj` of transformers 5 as they are.
    """

    w1: Tensor
    """(H, D)."""
    b1: Tensor | None
    """(H,)."""
    w2: Tensor
    """(D, F)."""
    b2: Tensor | None
    """(D,)."""
    activation: str
    """`gelu`, `gelu_tanh`, `relu` or `silu`; of a dense model its own name for it (`activation_name`)."""

    @property
    def d_model(self) -> int:
        """Width of input and output, D."""
        return self.w2.shape[-2]

    @property
    def d_hidden(self) -> int:
        """Hidden width, F."""
        return self.w2.shape[-1]

    @property
    def is_gated(self) -> bool:
        """Whether it has a gate: then the first matrix is twice as high as the second is wide."""
        return self.w1.shape[-2] != self.d_hidden

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Its weights and those biases that it has."""
        return tuple(part for part in (self.w1, self.b1, self.w2, self.b2) if part is not None)

    def map(self, change: Callable[[Tensor], Tensor]) -> "FFN":
        """Return the network of these weights, each changed."""
        w1, b1, w2, b2 = (
            None if part is None else change(part) for part in (self.w1, self.b1, self.w2, self.b2)
        )
        assert w1 is not None
        assert w2 is not None
        return replace(self, w1=w1, b1=b1, w2=w2, b2=b2)

    def unbind(self) -> list["FFN"]:
        """Split stacked networks; one gradient is built for each stack, not one for each expert."""
        experts = len(self.w1)
        nothing = [None] * experts
        parts = zip(
            self.w1.unbind(),
            nothing if self.b1 is None else self.b1.unbind(),
            self.w2.unbind(),
            nothing if self.b2 is None else self.b2.unbind(),
            strict=True,
        )
        return [FFN(w1, b1, w2, b2, self.activation) for w1, b1, w2, b2 in parts]

    def hidden(self, pre: Tensor) -> Tensor:
        """Compute what the second matrix multiplies, (..., F), from what the first one gives, (..., H)."""
        if not self.is_gated:
            return activate(pre, self.activation)
        gate, up = pre.chunk(2, dim=-1)
        return activate(gate, self.activation) * up

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute the output for rows (N, D); of stacked networks for rows of each, (E, N, D)."""
        return _affine(self.hidden(_affine(rows, self.w1, self.b1)), self.w2, self.b2)


def _affine(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = rows @ weight.transpose(-2, -1)
    return product if bias is None else product + bias.unsqueeze(-2)


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
    if activation == "silu":
        return torch.nn.functional.silu(pre)
    return torch.nn.functional.gelu(pre, approximate=_approximate(activation))


def activate_into(out: Tensor, pre: Tensor, activation: str) -> None:
    """Write the activation to `out`; without gradient."""
    if activation == "relu":
        torch.clamp_min(pre, 0, out=out)
    elif activation == "silu":
        torch.ops.aten.silu.out(pre, out=out)
    else:
        torch.ops.aten.gelu.out(pre, approximate=_approximate(activation), out=out)


def activate_backward_into(grad: Tensor, pre: Tensor, activation: str) -> None:
    """Turn the gradient at the activation's output into that at its input, in place."""
    if activation == "relu":
        grad.mul_(pre > 0)
    elif activation == "silu":
        torch.ops.aten.silu_backward.grad_input(grad, pre, grad_input=grad)
    else:
        approximate = _approximate(activation)
        torch.ops.aten.gelu_backward.grad_input(grad, pre, approximate=approximate, grad_input=grad)


def hidden_into(out_NF: Tensor, pre_NH: Tensor, activation: str) -> None:
    """Write `FFN.hidden` to `out_NF`; without gradient. Gated where `pre_NH` is twice as wide."""
    if pre_NH.shape == out_NF.shape:
        activate_into(out_NF, pre_NH, activation)
    else:
        gate_NF, up_NF = pre_NH.chunk(2, dim=1)
        activate_into(out_NF, gate_NF, activation)
        out_NF.mul_(up_NF)


def hidden_backward(grad_NF: Tensor, pre_NH: Tensor, activation: str) -> Tensor:
    """Return the gradient at the input of `FFN.hidden`, (N, H), from that at its output, which is lost."""
    if pre_NH.shape == grad_NF.shape:
        activate_backward_into(grad_NF, pre_NH, activation)
        return grad_NF
    gate_NF, up_NF = pre_NH.chunk(2, dim=1)
    grad_NH = torch.empty_like(pre_NH)
    grad_gate_NF, grad_up_NF = grad_NH.chunk(2, dim=1)
    activate_into(grad_up_NF, gate_NF, activation)
    grad_up_NF.mul_(grad_NF)
    torch.mul(grad_NF, up_NF, out=grad_gate_NF)
    activate_backward_into(grad_gate_NF, gate_NF, activation)
    return grad_NH


def _approximate(activation: str) -> str:
    return "tanh" if activation == "gelu_tanh" else "none"
