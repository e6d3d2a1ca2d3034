"""Masks of real tokens in the arguments of a call."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def attention_mask(call: Mapping[str, Any]) -> Tensor | None:
    """Return the argument `attention_mask` of a call: for stacks called with the mask of their own tokens."""
    mask: Tensor | None = call.get("attention_mask")
    return mask
