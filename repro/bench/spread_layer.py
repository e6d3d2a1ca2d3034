"""Time a layer whose experts are spread over processes, its experts alone and its exchanges alone."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.distributed as dist
from torch import Tensor

from repro.bench.cases import PRECISIONS, SIZES, Case, forced_routing, layer_weights
from repro.bench.layer import quartile_distance
from repro.bench.prediction import SETTINGS, busiest, fit, rows_between, share_of, timing
from repro.machine import busy_cpu_seconds, current_environment
from repro.moe.experts import grouped
from repro.moe.ffn import FFN
from repro.moe.routing import Routing
from repro.moe.spread import Spread
from repro.results.parallel import ParallelCase, SpreadModel

_FRACTIONS = (0.5, 1.0, 1.5, 2.0)
"""Rows of the experts and of the exchanges alone, over the tokens of a process: in a layer 1 to 2."""


@dataclass
class _Timed:
    """A forward and backward pass, and its seconds in the rounds that count."""

    step: Callable[[], None]
    place: float
    """Rows of a process, or bytes of an exchange: where it stands on its line."""
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class SpreadLayer:
    """Times the layer in the default process group, whose processes all do the same."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self._case = case
        self._device = device
        self._dtype = PRECISIONS[case.precision]
        self._width = SIZES[case.size].d_model
        self._rank, self._processes = dist.get_rank(), dist.get_world_size()
        group = dist.group.WORLD
        assert group is not None
        self._spread = Spread(group=group)
        self._weights = _part(layer_weights(case, device), self._rank, self._processes)
        counts = [max(1, round(fraction * case.tokens)) for fraction in _FRACTIONS]
        self._experts = [self._experts_alone(rows) for rows in counts]
        self._exchanges = [self._exchange_alone(rows) for rows in counts]
        self._layers = {
            setting: _Timed(self._passes(case, *setting, self._compute), setting[0]) for setting in SETTINGS
        }
        self._start = time.perf_counter(), busy_cpu_seconds(), time.process_time()

    def round(self, *, counts: bool) -> None:
        """Time everything once, in turn, so that what else the machine does meets all of it.

        Args:
            counts: False while everything warms up.
        """
        for timed in (*self._experts, *self._exchanges, *self._layers.values()):
            seconds = self._time(timed.step)
            if counts:
                timed.seconds.append(seconds)

    def outcome(self) -> ParallelCase:
        """Lay the lines of the formula, and put its predictions beside what was measured."""
        case = self._case
        fixed, per_row = fit(*_points(self._experts))
        latency, per_byte = fit(*_points(self._exchanges))
        model = SpreadModel(
            experts_seconds=fixed,
            seconds_per_row=per_row,
            exchange_seconds=latency / 4,
            seconds_per_byte=per_byte / 4,
        )
        environment = current_environment(self._device)
        return ParallelCase(
            size=case.size,
            d_model=self._width,
            d_hidden=SIZES[case.size].d_hidden,
            experts=case.experts,
            tokens=case.tokens,
            precision=case.precision,
            processes=self._processes,
            device=environment.device,
            repeats=len(self._experts[0].seconds),
            environment=environment.model_copy(update={"processes": self._processes}),
            beside=self._beside(),
            model=model,
            rows=[
                timing(model, case, self._processes, *setting, timed.median, quartile_distance(timed.seconds))
                for setting, timed in self._layers.items()
            ],
        )

    def _experts_alone(self, rows: int) -> _Timed:
        """Prepare the experts held here, with rows spread evenly over them."""
        held = self._case.experts // self._processes
        routing = forced_routing(rows, held, 1.0, self._dtype, self._device)
        x_TD = self._tokens(rows)
        return _Timed(self._both(lambda: self._compute(x_TD, routing), x_TD), rows)

    def _exchange_alone(self, rows: int) -> _Timed:
        """Prepare the four exchanges with dispatch and combine, of as many one-expert tokens."""
        case = replace(self._case, tokens=rows)
        away = busiest(rows_between(case, self._processes, 1.0, False))[1]
        step = self._passes(case, 1.0, False, lambda arrived_RD, routing: arrived_RD)
        return _Timed(step, away * self._width * self._dtype.itemsize)

    def _passes(
        self, case: Case, share: float, mixed: bool, experts: Callable[[Tensor, Routing], Tensor]
    ) -> Callable[[], None]:
        """Prepare both passes of a spread layer whose experts are these."""
        own = share_of(self._rank, self._processes, share, mixed)
        drawn = forced_routing(
            case.tokens, case.experts, own, self._dtype, self._device, seed=self._rank, k=case.k
        )
        routing = replace(drawn, weight_A=drawn.weight_A.detach().requires_grad_())
        x_TD = self._tokens(case.tokens)
        return self._both(lambda: self._spread.forward(x_TD, routing, experts)[0], x_TD, routing.weight_A)

    def _tokens(self, count: int) -> Tensor:
        return torch.randn(count, self._width, device=self._device, dtype=self._dtype).requires_grad_()

    def _compute(self, x_TD: Tensor, routing: Routing) -> Tensor:
        return grouped.forward(x_TD, routing, self._weights)

    def _both(self, forward: Callable[[], Tensor], *inputs: Tensor) -> Callable[[], None]:
        """Add the backward pass, to these inputs and to the weights where they take part."""

        def step() -> None:
            output = forward()
            torch.autograd.grad(output, (*inputs, *self._weights.tensors), output.detach(), allow_unused=True)

        return step

    def _time(self, step: Callable[[], None]) -> float:
        """Return the seconds until the last process is done."""
        dist.barrier()
        start = time.perf_counter()
        step()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        longest = torch.tensor(time.perf_counter() - start, dtype=torch.float64, device=self._device)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        return float(longest)

    def _beside(self) -> float | None:
        """Return how many CPUs other programs have kept busy since the start, on average."""
        start, busy_before, own_before = self._start
        own = torch.tensor(time.process_time() - own_before, dtype=torch.float64, device=self._device)
        dist.all_reduce(own)
        busy = busy_cpu_seconds()
        if busy is None or busy_before is None:
            return None
        return max(0.0, busy - busy_before - float(own)) / (time.perf_counter() - start)


def _points(line: list[_Timed]) -> tuple[list[float], list[float]]:
    return [timed.place for timed in line], [timed.median for timed in line]


def _part(whole: FFN, rank: int, processes: int) -> FFN:
    """Take the experts of one process."""
    return whole.map(lambda tensor: tensor.detach().chunk(processes)[rank].clone().requires_grad_())
