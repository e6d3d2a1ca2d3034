"""In which types a model is held and computed: what its memory is planned by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Where and in which precision a model is computed."""

    device: Literal["cpu", "cuda"]
    bf16: bool

    @property
    def product(self) -> int:
        """Bytes of a number in products."""
        return 2 if self.bf16 else 4

    def mask(self, number: int) -> int:
        """Bytes of an entry of a dropout mask for numbers of this many bytes."""
        return 1 if self.device == "cuda" else number


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The weights of a model of which low-rank additions are trained."""

    rank: int
    """Of the additions."""
    number: int = 4
    """Bytes of a number of the weights."""
