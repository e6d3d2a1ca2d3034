"""How much a model has to process, and what a dense model of it costs."""

from dataclasses import dataclass


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
