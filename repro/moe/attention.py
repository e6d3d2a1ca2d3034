"""How much each token attends to any one position, for gates that decide by it.

The fused kernels of attention (SDPA) hand out no weights. The library's attention interface takes further
functions by name: the one here attends as SDPA does, with the same output and gradients, and computes the
weights once more beside it, without gradients and without dropout. That costs a product of queries and
keys, D multiply-adds a pair of positions, and for a moment memory for H S^2 weights a sequence. Only models
whose gate asks for it are changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "attention_peaks"
"""Under which the library knows the function."""


class AttentionPeaks:
    """The largest weight with which each token attended to one position in a call, mean over heads."""

    def __init__(self) -> None:
        self._peaks_BS: Tensor | None = None

    def keep(self, weights_BHSK: Tensor) -> None:
        """Keep the peaks of the weights of a call: of S tokens over K positions in H heads."""
        self._peaks_BS = weights_BHSK.detach().float().amax(-1).mean(1)

    def take_T(self, shape: tuple[int, int], time_major: bool) -> Tensor | None:
        """Return the peaks of the last call for a layer's tokens, (T,), fp32, and forget them.

        None if there was no call since: what another implementation computes is not seen. Gradient
        checkpointing repeats the attention before the layer.

        Args:
            shape: the two leading axes of the layer's input.
        """
        peaks_BS, self._peaks_BS = self._peaks_BS, None
        if peaks_BS is None:
            return None
        peaks = peaks_BS.t() if time_major else peaks_BS
        assert peaks.shape == shape, f"peaks of {tuple(peaks.shape)} do not fit tokens {shape}"
        return peaks.reshape(-1)


def watch(model: PreTrainedModel, attention: Any) -> AttentionPeaks:
    """Return the peaks of every call of an attention module of the model from now on."""
    peaks = AttentionPeaks()
    attention.peaks = peaks
    if hasattr(attention, "config"):  # where it looks up which function computes it
        model.set_attn_implementation(_NAME)
    else:  # FSMT: it has weights of its own, before dropout, and hands them out if asked
        attention.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)
        attention.register_forward_hook(_keep_weights)
    return peaks


def _ask_for_weights(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "output_attentions": True}


def _keep_weights(module: Any, args: Any, output: Any) -> None:
    module.peaks.keep(output[1])


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as SDPA does; of a watched module keep the peaks."""
    peaks: AttentionPeaks | None = getattr(module, "peaks", None)
    if peaks is not None:
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            peaks.keep(attention_weights(query, key, attention_mask, scaling, causal=module.is_causal))
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )
    return output


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, *, causal: bool
) -> Tensor:
    """Compute the weights that SDPA attends with, (B, H, S, K), in fp32 (fp64 for fp64).

    Args:
        query: (B, H, S, D / H).
        key: (B, H, K, D / H), or of fewer heads that groups of queries share.
        mask: True (or 0) where a token may attend, False (or -inf) elsewhere, (B, 1, S, K); None: all may.
        scaling: of the products; None: 1 / sqrt(D / H).
        causal: whether, without a mask, several tokens attend to none behind them.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    shared = query.shape[1] // key.shape[1]
    keys = key.repeat_interleave(shared, dim=1) if shared > 1 else key
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query.to(dtype) @ keys.to(dtype).transpose(-1, -2) * scale
    if mask is None and causal and query.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        # Not -inf: rows of padding may have no position to attend to.
        scores = scores.masked_fill(~mask, torch.finfo(dtype).min)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
