"""The state of a training run besides model, optimizer, schedule and random states."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from repro.moe.flops import Work
from repro.moe.totals import RoutingTotals
from repro.results.records import CurvePoint, StepRecord

if TYPE_CHECKING:
    from torch import Tensor

    from repro.machine import Stopwatch
    from repro.training.lane import Lane


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
    is_fair: list[bool] = field(default_factory=list)
    """Of each step, whether its time may be compared with that of other runs (`Lane.is_fair`)."""
    neighbours: dict[str, int] = field(default_factory=dict)
    """Run id -> fair steps that this run did beside it."""
    partners: list[str] = field(default_factory=list)
    """Ids of the runs that trained between the steps of this one."""
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

    def add_time(self, watch: Stopwatch, lane: Lane) -> None:
        """Add the time of a step, and what else the machine did meanwhile."""
        self.train_seconds += watch.seconds
        self.step_seconds.append(watch.seconds)
        self.is_fair.append(lane.is_fair())
        if self.is_fair[-1]:
            for run_id in lane.neighbours():
                self.neighbours[run_id] = self.neighbours.get(run_id, 0) + 1
        if self.cpu_steal_seconds is not None and watch.cpu_steal_seconds is not None:
            self.cpu_steal_seconds += watch.cpu_steal_seconds
        else:
            self.cpu_steal_seconds = None

    @property
    def fair_steps(self) -> int:
        """Steps whose times may be compared with those of other runs."""
        return sum(self.is_fair)

    def seconds_per_step(self, start: int = 0, end: int | None = None) -> float:
        """Return the median training time of the steps of a range: of the fair ones, if there are any."""
        seconds, is_fair = self.step_seconds[start:end], self.is_fair[start:end]
        return median([second for second, fair in zip(seconds, is_fair, strict=True) if fair] or seconds)

    def seconds_by_epoch(self) -> list[float]:
        """Return `seconds_per_step` of each epoch; the last may have been cut short."""
        bounds = [0, *self.epoch_ends, self.step]
        return [self.seconds_per_step(start, end) for start, end in pairwise(bounds) if start < end]

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
