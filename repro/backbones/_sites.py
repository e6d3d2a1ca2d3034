"""What a backbone tells about a model: where its feed-forward networks and its masks are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError


@dataclass(frozen=True, eq=False)
class FFNSite:
    """One feed-forward network of a model: its weights, and how to put another module in its place."""

    stack: str
    """`encoder` or `decoder`: which mask its tokens have."""
    w1_FD: Tensor
    b1_F: Tensor
    w2_DF: Tensor
    b2_D: Tensor
    activation: str
    """As the Hugging Face configuration names it."""
    norm: nn.LayerNorm
    """The norm whose output it reads."""
    replace: Callable[[nn.Module], None]


@dataclass(frozen=True, eq=False)
class Stack:
    """One stack of layers, and the mask of real tokens in each call of it."""

    module: nn.Module
    mask: Callable[[Mapping[str, Any]], Tensor | None]
    """From the arguments of a call: (B, S), nonzero for real tokens, or None when all are. With a
    key/value cache it may cover the cached tokens too; the last columns are the new ones."""


def attention_mask(call: Mapping[str, Any]) -> Tensor | None:
    """The mask of a stack whose argument `attention_mask` is that of its own tokens."""
    mask: Tensor | None = call.get("attention_mask")
    return mask


def replace_bare_ffn(layer: Any, module: nn.Module) -> None:
    """Put a module in the place of `fc1`, an activation attribute and `fc2` (BART, FSMT).

    The layer would drop activations between its two matrices; behind a whole MoE layer that
    place is its output, so that dropout is turned off.
    """
    layer.fc1 = module
    layer.fc2 = nn.Identity()
    layer.activation_fn = nn.Identity()
    layer.activation_dropout = 0.0


def refuse_layerdrop(config: Any) -> None:
    """A layer that is skipped at random has no routing to count.

    Raises:
        UserError: the configuration asks for it.
    """
    for name in ("encoder_layerdrop", "decoder_layerdrop"):
        if getattr(config, name):
            raise UserError(f"model.config.{name}: must be 0 for a model with MoE layers")
