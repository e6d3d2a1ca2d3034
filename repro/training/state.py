"""The state of a training run besides model, optimizer, schedule and random states."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from repro.moe.flops import Work
from repro.moe.routing import RoutingTotals
from repro.results.records import CurvePoint, StepRecord

if TYPE_CHECKING:
    from torch import Tensor

    from repro.machine import Stopwatch


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is reported after every optimiser step."""

    record: StepRecord
    done: int
    """Steps so far, those of the trunk and of the cooldown."""
    total_steps: int
    train_seconds: float
    """Training time so far."""


@dataclass
class TrainingState:
    """Counters, totals and measurements of a run; they are part of its checkpoints."""

    step: int = 0
    """Optimiser steps done."""
    epoch: int = 0
    """Passes over the training data that have ended."""
    position: int = 0
    """Optimiser steps done in this epoch."""
    train_seconds: float = 0.0
    cpu_steal_seconds: float | None = 0.0
    """Time that other virtual machines took during `train_seconds`, summed over CPUs; None if unknown."""
    tokens: int = 0
    """Real tokens trained on."""
    curve: list[CurvePoint] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    routing: RoutingTotals = field(default_factory=RoutingTotals)
    step_seconds: list[float] = field(default_factory=list)
    """Training time of each step."""
    ratios_NL: Tensor | None = None
    """Complexity vectors of the epoch before (paper eq. 5); None in the first epoch."""
    num_multi_expert_N: Tensor | None = None
    """Tokens of each sample given two or more experts in the epoch before, over all layers."""
    seen_N: Tensor | None = None
    """Whether each sample was trained on in the epoch before."""
    next_ratios_NL: Tensor | None = None
    """Complexity vectors of this epoch so far."""
    next_num_multi_expert_N: Tensor | None = None
    next_seen_N: Tensor | None = None
    """Whether each sample was trained on in this epoch so far, by this process."""
    place_ratio_correlations: list[float | None] = field(default_factory=list)
    """`curriculum.place_ratio_correlation` of every epoch that has ended."""
    epoch_ends: list[int] = field(default_factory=list)
    """Steps after which they ended."""

    def add_time(self, watch: Stopwatch) -> None:
        """Add the time of a step."""
        self.train_seconds += watch.seconds
        self.step_seconds.append(watch.seconds)
        if self.cpu_steal_seconds is not None and watch.cpu_steal_seconds is not None:
            self.cpu_steal_seconds += watch.cpu_steal_seconds
        else:
            self.cpu_steal_seconds = None

    def seconds_by_epoch(self) -> list[float]:
        """Return the median training time of a step in each epoch; the last may have been cut short."""
        bounds = [0, *self.epoch_ends, self.step]
        epochs = [self.step_seconds[start:end] for start, end in pairwise(bounds)]
        return [median(seconds) for seconds in epochs if seconds]

    def state_dict(self) -> dict[str, Any]:
        """Return plain data and tensors, which load safely (`weights_only`)."""
        own = {"work": asdict(self.work), "routing": asdict(self.routing)}
        return dict(vars(self)) | own | {"curve": [list(point) for point in self.curve]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state)
        self.work = Work.of_plain(state["work"])
        self.routing = RoutingTotals(**state["routing"])
        self.curve = [CurvePoint(*point) for point in state["curve"]]
