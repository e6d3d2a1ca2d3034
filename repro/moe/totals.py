"""Statistics of routing as plain sums, which add up over passes, processes and checkpoints."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from repro.moe.routing import RoutingTape
from repro.results.records import RoutingSummary


@dataclass
class RoutingTotals:
    """Routing statistics summed over many forward passes, on the CPU, per layer.

    Everything is a plain sum, so totals of several processes or checkpoints add up.
    """

    count_LK: list[list[int]] = field(default_factory=list)
    """Tokens by number of experts (index 0, 1, 2, ...)."""
    load_LE: list[list[int]] = field(default_factory=list)
    logit_variance_L: list[float] = field(default_factory=list)
    """Sum over tokens of the variance of the router logits over experts."""

    @staticmethod
    def of(tape: RoutingTape) -> "RoutingTotals":
        """Sum over one tape. Padding is not counted."""
        return RoutingTotals.of_rows(tape.totals_LC().tolist())

    @staticmethod
    def of_rows(rows: Sequence[Sequence[float]]) -> "RoutingTotals":
        """Read the rows of `RoutingTape.totals_LC`."""
        totals = RoutingTotals()
        for row in rows:
            experts = (len(row) - 4) // 2
            counts = [int(value) for value in row[: experts + 1]]
            while counts and counts[-1] == 0:
                counts.pop()
            totals.count_LK.append(counts)
            totals.load_LE.append([int(value) for value in row[experts + 1 : 2 * experts + 1]])
            totals.logit_variance_L.append(row[2 * experts + 1])
        return totals

    def __add__(self, other: "RoutingTotals") -> "RoutingTotals":
        """Add totals of two processes that saw the same layers, or one that saw none."""
        if not self.count_LK or not other.count_LK:
            return other if not self.count_LK else self
        return RoutingTotals(
            count_LK=[add_counts(a, b) for a, b in zip(self.count_LK, other.count_LK, strict=True)],
            load_LE=[add_counts(a, b) for a, b in zip(self.load_LE, other.load_LE, strict=True)],
            logit_variance_L=[
                a + b for a, b in zip(self.logit_variance_L, other.logit_variance_L, strict=True)
            ],
        )

    def tokens_L(self) -> list[int]:
        """Count the real tokens seen by each layer."""
        return [sum(row) for row in self.count_LK]

    def assignments_L(self) -> list[int]:
        """Count the (token, expert) pairs of each layer."""
        return [sum(row) for row in self.load_LE]

    def summary(self) -> RoutingSummary:
        """Derive the `routing` entry of a result: shares and means."""
        width = max((len(row) for row in self.count_LK), default=0)
        rows = [row + [0] * (width - len(row)) for row in self.count_LK]
        return RoutingSummary(
            mean_experts=_ratio(sum(self.assignments_L()), sum(self.tokens_L())),
            share_by_count=_shares([sum(column) for column in zip(*rows, strict=True)]),
            share_by_count_per_layer=[_shares(row) for row in rows],
            load_cv_per_layer=[_variation(row) for row in self.load_LE],
            logit_std_per_layer=[
                None if not tokens else (variance / tokens) ** 0.5
                for variance, tokens in zip(self.logit_variance_L, self.tokens_L(), strict=True)
            ],
        )


def add_counts(left: list[int], right: list[int]) -> list[int]:
    """Add elementwise; the shorter list counts as padded with zeros."""
    return [a + b for a, b in itertools.zip_longest(left, right, fillvalue=0)]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _shares(counts: list[int]) -> list[float] | None:
    return [count / sum(counts) for count in counts] if sum(counts) else None


def _variation(load: list[int]) -> float | None:
    if not sum(load):
        return None
    mean = sum(load) / len(load)
    return float((sum((value - mean) ** 2 for value in load) / len(load)) ** 0.5 / mean)
