"""Turning lists of different lengths into one tensor."""

import torch
from torch import Tensor


def pad(sequences: list[list[int]], value: int) -> Tensor:
    """Right-pad to the longest, shape (B, S), int64."""
    width = max(map(len, sequences))
    rows = [sequence + [value] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=torch.int64)
