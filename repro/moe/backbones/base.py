"""Contract of the backbones: what must be known about a Hugging Face architecture to convert and count it.

A file `backbones/<name>.py` is a backbone; the module satisfies `Backbone`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from torch import Tensor, nn

from repro import plugins
from repro.moe.ffn import FFN
from repro.moe.volume import Volume

if TYPE_CHECKING:
    from transformers import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
    )


@dataclass(frozen=True, kw_only=True)
class OwnRouter:
    """How the MoE blocks of a model route by themselves: softmax over all experts, the k most probable ones.

    It is the gate `top-k` with these two options.
    """

    experts: int
    k: int
    combine: Literal["raw", "renormalised"]
    """Weights of the selected experts: their probabilities, or these divided by their sum."""


@dataclass(frozen=True, eq=False)
class FFNSite:
    """One feed-forward network of a model, or one of its MoE blocks, and how to put a module in its place."""

    stack: str
    """`encoder` or `decoder`: which mask its tokens have."""
    ffn: FFN
    """Its weights; of an MoE block those of its experts, stacked: the model's own tensors."""
    norm: nn.Module
    """The norm whose output it reads: a layer norm, or an RMS norm, which has no bias."""
    replace: Callable[[nn.Module], None]
    router_ED: Tensor | None = None
    """Of an MoE block the weight of its router; None for a dense network."""
    attention: nn.Module | None = None
    """The self-attention of its block, for gates that decide by its weights; None if these cannot be had."""


@dataclass(frozen=True, eq=False)
class Stack:
    """One stack of layers, and the mask of real tokens in each call of it."""

    module: nn.Module
    mask: Callable[[Mapping[str, Any]], Tensor | None]
    """From the arguments of a call: (B, S), nonzero for real tokens, or None when all are. With a
    key/value cache it may cover the cached tokens too; the last columns are the new ones."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What decides how much the layers of an architecture keep for the backward pass (`moe.activations`)."""

    heads: Mapping[str, str]
    """Stack -> how its number of attention heads is called in the configuration."""
    dropout: str | None
    """How the rate of dropout behind attention and feed-forward network is called; None if there is none."""
    attention_dropout: str
    """How that of attention weights is called."""
    fused_attention: bool = True
    """Whether attention is one operation; else its products and its softmax are operations of their own."""
    projections: int = 3
    """Products that read the input of self-attention: queries, keys and values each, or all by one."""
    embedding_norm: bool = True
    """Whether a norm stands behind the embeddings."""
    final_norm: bool = False
    """Whether a norm stands between the last layer and the head."""
    rms_norm: bool = False
    """Whether norms divide by the root mean square alone, in operations of their own (Llama)."""


class CostModel(Protocol):
    """The part of a backbone that costs are counted with."""

    @property
    def LAYOUT(self) -> Layout:
        """What its layers keep for the backward pass."""

    def rest_macs(self, config: PreTrainedConfig, head: str, volume: Volume) -> int:
        """Count the multiply-adds of a forward pass outside the feed-forward networks and MoE blocks."""


class Backbone(CostModel, Protocol):
    """A file `backbones/<name>.py`."""

    @property
    def MODEL_TYPE(self) -> str:
        """The `model_type` of its Hugging Face configuration."""

    @property
    def STACKS(self) -> Mapping[str, str]:
        """`encoder` and/or `decoder`, in the order of computation -> how its number of layers is called."""

    @property
    def CONFIG(self) -> type[PreTrainedConfig]:
        """The class of its Hugging Face configuration."""

    @property
    def HEADS(self) -> Mapping[str, type[PreTrainedModel]]:
        """Task head -> model class."""

    @property
    def INIT_STD(self) -> str:
        """The entry of the configuration that gives the standard deviation of fresh weights."""

    @property
    def TIME_MAJOR(self) -> bool:
        """Whether activations inside its layers are (S, B, D) instead of (B, S, D)."""

    def ffn_sites(self, model: PreTrainedModel) -> Iterable[FFNSite]:
        """Find its feed-forward networks and MoE blocks, in the order of computation.

        Raises:
            UserError: the configuration calls them in another way than once for all tokens of a batch, so
                that masks would not fit, or lets layers be skipped, so that routing could not be counted.
        """

    def own_router(self, config: PreTrainedConfig) -> OwnRouter | None:
        """Return how the MoE blocks of such a model route by themselves; None for a family without any."""

    def stacks(self, model: PreTrainedModel) -> dict[str, Stack]:
        """Map `encoder` and/or `decoder` to the module that is called with the mask of real tokens."""

    def fixed_parameters(self, model: PreTrainedModel) -> list[nn.Parameter]:
        """Return the parameters that are never trained."""

    def vocabulary(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        """Return the entries of the configuration that follow from a trained tokenizer."""

    def train_tokenizer(self, texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
        """Train a tokenizer of the family's own kind; the same texts give the same one."""


def load(name: str) -> Backbone:
    """Import a backbone.

    Raises:
        UserError: no backbone has that name.
    """
    return cast(Backbone, plugins.load("backbones", name))
