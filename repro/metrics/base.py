"""Contract of the metrics: `evaluate.Metric` classes around established implementations, without network.

A file `metrics/<name>.py` is a metric; the module satisfies `MetricModule`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, cast

from pydantic import JsonValue

from repro import plugins


class Scorer(Protocol):
    """An `evaluate.Metric`."""

    def compute(
        self, *, predictions: Sequence[object], references: Sequence[object]
    ) -> Mapping[str, JsonValue]:
        """Score predictions against references.

        Returns:
            A flat mapping that JSON can hold. Its entry `<name>` is the headline number, others stand beside
            it; an entry is None where the number does not exist.
        """


ScorerClass: TypeAlias = type[Scorer]


class MetricModule(Protocol):
    """A file `metrics/<name>.py`."""

    @property
    def HIGHER_IS_BETTER(self) -> bool:
        """Whether a larger headline number is better."""

    @property
    def Metric(self) -> ScorerClass:
        """The metric itself; constructed without arguments, it writes no file."""


def load(name: str) -> MetricModule:
    """Import a metric.

    Raises:
        UserError: no metric has that name.
    """
    return cast(MetricModule, plugins.load("metrics", name))
