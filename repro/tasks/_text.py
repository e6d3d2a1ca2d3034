"""Turning texts into token ids, and lists of different lengths into one tensor."""

from typing import Any

import torch
from torch import Tensor


def token_ids(
    tokenizer: Any, texts: list[str], max_length: int, **options: Any
) -> list[tuple[list[int], bool]]:
    """Ids of each text with the tokenizer's special tokens, and whether it was cut at `max_length`."""
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        **options,
    )
    ids = encoded["input_ids"]
    if encoded.encodings is None:  # a tokenizer without the Rust library does not tell
        return [(row, len(row) == max_length) for row in ids]
    return [(row, bool(one.overflowing)) for row, one in zip(ids, encoded.encodings, strict=True)]


def pad(sequences: list[list[int]], value: int) -> Tensor:
    """Right-pad to the longest, shape (B, S), int64."""
    width = max(map(len, sequences))
    rows = [sequence + [value] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=torch.int64)


def ones_like(sequences: list[list[int]]) -> Tensor:
    """The mask of such a padded tensor: 1 where a sequence is, shape (B, S)."""
    return pad([[1] * len(sequence) for sequence in sequences], 0)
