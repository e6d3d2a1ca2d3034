"""The layer of Table 1 with its experts spread over processes: measured, beside what one formula predicts.

A step waits for the process whose experts have the most rows (paper, 3.2). The formula, for the forward and
backward pass of one layer:

    t = a + b r + 4 (c + d q)

r are the rows of the busiest process; q the bytes that the busiest link carries in one of the four exchanges
(tokens there and back, forward and backward). a and b are a line through the times of the experts alone, all
processes at once, at several numbers of rows: a is what does not depend on rows, reading weights and writing
their gradients. c and d are a line through the times of exchanges of several sizes. All four are measured in
the same processes, before the layer is.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from time import perf_counter

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from repro.bench.cases import PRECISIONS, SHARES, SIZES, Case, forced_routing, layer_weights
from repro.errors import UserError, named_line
from repro.machine import current_environment
from repro.moe.experts import grouped
from repro.moe.routing import Routing
from repro.moe.spread import Spread
from repro.results.bench import ExchangeModel, ParallelCase, ParallelTiming

_SIZES_OF_LINES = (0.25, 0.5, 1.0, 2.0)
"""Rows and exchanges through which the lines are laid, relative to those of a layer at top-1."""
EXCHANGES = 4
"""Of one layer: tokens and outputs, forward and backward."""
_GPUS = 8
"""Of the paper's machine."""


def measure(case: Case, processes: int, *, repeats: int, progress: Callable[[], None]) -> ParallelCase:
    """Start processes on this machine, on its GPUs if it has as many, and measure in all of them.

    Args:
        case: `tokens` are those of each process.
        repeats: rounds; medians are taken.
        progress: called after every round.

    Raises:
        UserError: a process failed.
    """
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(processes)]
    port = _free_port()
    running = [
        context.Process(target=_work, args=(theirs, rank, processes, port, case, repeats), daemon=True)
        for rank, (_, theirs) in enumerate(pairs)
    ]
    try:
        for process in running:
            process.start()
        for _, theirs in pairs:
            theirs.close()
        while True:
            message = pairs[0][0].recv()
            if isinstance(message, ParallelCase):
                return message
            progress()
    except EOFError as error:
        reasons = [_reason(ours) for ours, _ in pairs[1:]]
        raise UserError(
            f"--parallel {processes}: {next(filter(None, reasons), 'a process ended')}"
        ) from error
    finally:
        for process in running:
            process.kill()
            process.join()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _reason(channel: Connection) -> str | None:
    with suppress(EOFError, OSError):
        if channel.poll(1):
            return str(channel.recv())
    return None


def _work(channel: Connection, rank: int, processes: int, port: int, case: Case, repeats: int) -> None:
    """Measure in one of the processes; the first sends the outcome."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        on_gpus = torch.cuda.is_available() and torch.cuda.device_count() >= processes
        device = torch.device("cuda", rank) if on_gpus else torch.device("cpu")
        if not on_gpus:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
        dist.init_process_group("nccl" if on_gpus else "gloo", rank=rank, world_size=processes)
        bench = _Bench(case, device, repeats)
        outcome = bench.measured(lambda: channel.send("round") if rank == 0 else None)
        if rank == 0:
            channel.send(outcome)
    except Exception as error:
        channel.send(named_line(error))
        raise


def predict(case: Case) -> ParallelCase:
    """Predict the layer on the paper's machine, which is not at hand: 8 GPUs, from the numbers of their maker.

    A100-SXM4-40GB (NVIDIA's data sheet): 312 TFLOP/s in fp16, memory 1,555 GB/s, NVLink 300 GB/s each way. Ours
    is that products reach half of the first and exchanges 70 % of the last, that an exchange takes 30 us however
    small it is, and that weights are read twice and their gradients written once.
    """
    size = SIZES[case.size]
    held = size.parameters * case.experts / _GPUS
    model = ExchangeModel(
        fixed_seconds=3 * 2 * held / 1555e9,
        seconds_per_row=6 * size.parameters / (0.5 * 312e12),
        latency_seconds=30e-6,
        seconds_per_byte=1 / (0.7 * 300e9),
    )
    timings = []
    for share in SHARES:
        rows_NN = torch.stack(
            [
                forced_routing(
                    case.tokens,
                    case.experts,
                    share,
                    torch.float32,
                    torch.device("cpu"),
                    seed=rank,
                    k=case.k,
                )
                .load_E.view(_GPUS, -1)
                .sum(1)
                for rank in range(_GPUS)
            ]
        )
        busiest, sent = _busiest(rows_NN)
        timings.append(
            ParallelTiming(
                share_top1=share,
                rows=int(rows_NN.sum()),
                busiest_rows=busiest,
                busiest_bytes=sent * 2 * size.d_model,
                seconds=None,
                predicted_seconds=model.predict(busiest, sent * 2 * size.d_model, EXCHANGES),
            )
        )
    return ParallelCase(
        size=case.size,
        d_model=size.d_model,
        d_hidden=size.d_hidden,
        experts=case.experts,
        tokens=case.tokens,
        precision="fp16",
        processes=_GPUS,
        repeats=0,
        environment=None,
        device="A100 (predicted)",
        model=model,
        rows=timings,
    )


def _busiest(rows_NN: Tensor) -> tuple[int, int]:
    """Return the rows of the process that has the most, and the most that one sends to others or receives."""
    away_NN = rows_NN - torch.diag(rows_NN.diagonal())
    return int(rows_NN.sum(0).max()), int(torch.maximum(away_NN.sum(0), away_NN.sum(1)).max())


class _Bench:
    """One process and its share of the experts."""

    def __init__(self, case: Case, device: torch.device, repeats: int) -> None:
        self._case = case
        self._device = device
        self._repeats = repeats
        self._group = dist.group.WORLD
        self._processes = dist.get_world_size()
        self._held = case.experts // self._processes
        own = dist.get_rank() * self._held
        whole = layer_weights(case, device)
        self._weights = whole.map(lambda part: part.detach()[own : own + self._held].clone().requires_grad_())
        self._dtype = PRECISIONS[case.precision]
        self._width = SIZES[case.size].d_model
        self._spread = Spread(group=self._group)

    def measured(self, tell: Callable[[], None]) -> ParallelCase:
        """Lay the lines, then time the layer at every share.

        Args:
            tell: called after every round.
        """
        rows = [max(1, round(size * self._case.tokens)) for size in _SIZES_OF_LINES]
        experts = [self._timed(self._experts(count)) for count in rows]
        sizes = [count // self._processes * (self._processes - 1) for count in rows]
        exchanges = [self._timed(self._exchange(count)) for count in rows]
        byte = self._width * self._dtype.itemsize
        fixed, per_row = _line(rows, experts)
        latency, per_byte = _line([size * byte for size in sizes], [seconds / 2 for seconds in exchanges])
        model = ExchangeModel(
            fixed_seconds=fixed,
            seconds_per_row=per_row,
            latency_seconds=latency,
            seconds_per_byte=per_byte,
        )
        timings = []
        for share in SHARES:
            step, rows_NN = self._layer(share)
            busiest, away = _busiest(rows_NN)
            sent = away * byte
            timings.append(
                ParallelTiming(
                    share_top1=share,
                    rows=int(rows_NN.sum()),
                    busiest_rows=busiest,
                    busiest_bytes=sent,
                    seconds=self._timed(step),
                    predicted_seconds=model.predict(busiest, sent, EXCHANGES),
                )
            )
            tell()
        case = self._case
        return ParallelCase(
            size=case.size,
            d_model=self._width,
            d_hidden=SIZES[case.size].d_hidden,
            experts=case.experts,
            tokens=case.tokens,
            precision=case.precision,
            processes=self._processes,
            repeats=self._repeats,
            environment=current_environment(self._device),
            device=self._device.type,
            model=model,
            rows=timings,
        )

    def _experts(self, rows: int) -> Callable[[], None]:
        """Forward and backward pass of the experts held here, over rows that are spread evenly."""
        routing = forced_routing(rows, self._held, 1.0, self._dtype, self._device)
        x_TD = torch.randn(rows, self._width, device=self._device, dtype=self._dtype).requires_grad_()
        return lambda: _both(lambda: grouped.forward(x_TD, routing, self._weights), (x_TD, *self._own()))

    def _exchange(self, rows: int) -> Callable[[], None]:
        """One exchange forward and one backward, evenly among all processes."""
        part = rows // self._processes
        counts_NX = torch.full((self._processes, 1), part, device=self._device)
        x_TD = torch.randn(part * self._processes, self._width, device=self._device, dtype=self._dtype)
        x_TD.requires_grad_()
        sizes = counts_NX[:, 0].tolist()
        return lambda: _both(lambda: self._spread.exchange(x_TD, sizes, sizes), (x_TD,))

    def _layer(self, share: float) -> tuple[Callable[[], None], Tensor]:
        """Prepare the layer; also return the rows that go from each process to each, (N, N)."""
        case = self._case
        routing = forced_routing(
            case.tokens,
            case.experts,
            share,
            self._dtype,
            self._device,
            seed=dist.get_rank(),
            k=case.k,
        )
        x_TD = torch.randn(case.tokens, self._width, device=self._device, dtype=self._dtype).requires_grad_()
        sent_N = routing.load_E.view(self._processes, -1).sum(1)
        rows_NN = [torch.empty_like(sent_N) for _ in range(self._processes)]
        dist.all_gather(rows_NN, sent_N.contiguous())
        weighed = replace(routing, weight_A=routing.weight_A.detach().requires_grad_())

        def forward() -> Tensor:
            return self._spread.forward(x_TD, weighed, self._compute)[0]

        inputs = (x_TD, weighed.weight_A, *self._own())
        return lambda: _both(forward, inputs), torch.stack(rows_NN)

    def _compute(self, x_TD: Tensor, routing: Routing) -> Tensor:
        return grouped.forward(x_TD, routing, self._weights)

    def _own(self) -> tuple[Tensor, ...]:
        return self._weights.tensors

    def _timed(self, step: Callable[[], None]) -> float:
        """Return the seconds until the last process is done, median of the rounds after one to warm up."""
        seconds = []
        for number in range(self._repeats + 1):
            dist.barrier()
            start = perf_counter()
            step()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            longest = torch.tensor(perf_counter() - start, dtype=torch.float64, device=self._device)
            dist.all_reduce(longest, dist.ReduceOp.MAX)
            if number:
                seconds.append(float(longest))
        return statistics.median(seconds)


def _both(forward: Callable[[], Tensor], inputs: Sequence[Tensor]) -> None:
    output = forward()
    torch.autograd.grad(output, inputs, output.detach(), allow_unused=True)


def _line(places: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Lay a line through times by least squares; neither its start nor its slope is below 0."""
    slope, start = np.polyfit(places, seconds, 1)
    if start < 0:
        slope, start = float(np.dot(places, seconds) / np.dot(places, places)), 0.0
    if slope < 0:
        slope, start = 0.0, statistics.fmean(seconds)
    return float(start), float(slope)
