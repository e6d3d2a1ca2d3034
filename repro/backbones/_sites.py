"""The values that a backbone describes itself with."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


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
    replace: Callable[[nn.Module], None]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """How much a model has to process; sums over sequences, so volumes add up."""

    sequences: int = 0
    tokens: int = 0
    """Sum of the sequence lengths."""
    squares: int = 0
    """Sum of the squared sequence lengths: pairs of positions that attention compares."""

    @staticmethod
    def of(lengths: list[int]) -> "Volume":
        """The volume of sequences of these lengths."""
        squares = sum(length * length for length in lengths)
        return Volume(sequences=len(lengths), tokens=sum(lengths), squares=squares)

    def __add__(self, other: "Volume") -> "Volume":
        return Volume(
            sequences=self.sequences + other.sequences,
            tokens=self.tokens + other.tokens,
            squares=self.squares + other.squares,
        )


@dataclass(frozen=True, kw_only=True)
class DenseMacs:
    """Multiply-adds of one dense forward pass over a volume."""

    ffn: int
    """Of all feed-forward networks together."""
    rest: int
    """Of everything else: attention, heads."""
