"""Turning texts into token ids, and lists of different lengths into one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int
) -> list[tuple[list[int], bool]]:
    """Encode each text with the tokenizer's special tokens; one that stands in a text is text.

    Returns:
        For each text its ids, and whether it was truncated to `max_length`.
    """
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        split_special_tokens=True,
    )
    ids = encoded["input_ids"]
    if encoded.encodings is None:  # a tokenizer without the Rust library does not tell
        return [(row, len(row) == max_length) for row in ids]
    return [(row, bool(one.overflowing)) for row, one in zip(ids, encoded.encodings, strict=True)]


def pad(sequences: list[list[int]], value: int) -> Tensor:
    """Right-pad to the longest sequence, shape (B, S), int64."""
    import torch

    width = max(map(len, sequences))
    rows = [sequence + [value] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=torch.int64)


def padding_mask(sequences: list[list[int]]) -> Tensor:
    """Build the mask of the padded sequences: 1 at their tokens, 0 at padding; shape (B, S)."""
    return pad([[1] * len(sequence) for sequence in sequences], 0)
