"""Units of what claims measure: how a number, the ends of its interval and an effect are written."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Unit:
    """How the numbers of a measurement are shown."""

    axis: str
    """Label of an axis."""
    word: str
    """What stands behind a number."""
    factor: float = 1.0
    """From a number to what is shown of it."""
    digits: int = 2
    """Digits behind the point."""
    is_signed: bool = False
    """Whether it is a difference, which is shown with its sign."""
    is_ratio: bool = False
    """Whether it is a ratio, whose effects are relative."""

    def number(self, value: float) -> str:
        """Format a number without its unit."""
        shown = round(self.factor * value, self.digits) + 0.0  # never -0
        return f"{shown:{'+' if self.is_signed else ''}.{self.digits}f}"

    def text(self, value: float) -> str:
        """Format a number with its unit."""
        return f"{self.number(value)} {self.word}".rstrip()

    def effect(self, size: float) -> str:
        """Format the size of a difference that could have been seen; of ratios it is relative."""
        if self.is_ratio:
            return f"{100 * size:.0f} %"
        return f"{self.factor * size:.{self.digits}f} {self.word}".rstrip()


TIMES = Unit(axis="ratio", word="times", is_ratio=True)
NATS = Unit(axis="difference of the validation loss (nats)", word="nats", digits=3, is_signed=True)
METRIC = Unit(axis="difference of the metric", word="", digits=3, is_signed=True)
PERCENT = Unit(axis="share of the tokens (%)", word="%", factor=100, digits=1)
POINTS = Unit(axis="difference of shares (points)", word="points", factor=100, digits=1, is_signed=True)
RANKS = Unit(axis="rank correlation", word="", is_signed=True)

UNITS: Mapping[str, Unit] = {
    "time": TIMES,
    "operations": TIMES,
    "operations_at_evaluation": TIMES,
    "loss": NATS,
    "quality": METRIC,
    "quality_by_rival": METRIC,
    "time_in_random_order": TIMES,
    "loss_in_random_order": NATS,
    "share": PERCENT,
    "share_below": POINTS,
    "order_of_shares": RANKS,
    "excess": POINTS,
    "change": POINTS,
    "spread": POINTS,
    "reversal": POINTS,
    "late_minus_early": POINTS,
    "clear": PERCENT,
    "layer_time": POINTS,
}
"""By the name of the measurement, of `measures.MEASURES`."""
COUNTED = "share of the tasks or cases that keep to the rule"
"""Label of an axis where items are counted."""
