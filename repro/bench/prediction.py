"""Predict the time of a layer whose experts are spread over processes, by one formula.

The formula is `results.parallel.SpreadModel`: t = a + b r + 4 (c + d q). A step waits for the process whose
experts have the most rows, r (paper, 3.2). Where processes are at hand, a and b are a line through the times
of the experts alone at several numbers of rows, c and d one through the times of the exchanges alone, with
dispatch and combine. For the paper's machine they follow from the figures of `assumed.toml`.
"""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.bench.cases import PRECISIONS, SHARES, SIZES, Case, forced_routing
from repro.results.parallel import ParallelCase, ParallelTiming, SpreadModel

SETTINGS = (*((share, False) for share in SHARES), (0.5, True))
"""Shares of one-expert tokens, and whether processes are mixed: half of them with one expert for every token,
the others with two. This is what an order of the samples by their shares avoids."""


def share_of(rank: int, processes: int, share: float, mixed: bool) -> float:
    """Return the share of one-expert tokens in one of the processes."""
    return float(rank < processes // 2) if mixed else share


@cache
def rows_between(case: Case, processes: int, share: float, mixed: bool) -> Tensor:
    """Count the rows that go from each process to each, itself included, (N, N).

    Each process draws its own tokens, the same every time (`forced_routing` with its rank as seed).

    Args:
        case: `tokens` are those of each process.
        share: of one-expert tokens, over all processes.
        mixed: as in `SETTINGS`.
    """
    loads = (
        forced_routing(
            case.tokens,
            case.experts,
            share_of(rank, processes, share, mixed),
            torch.float32,
            torch.device("cpu"),
            seed=rank,
            k=case.k,
        ).load_E
        for rank in range(processes)
    )
    return torch.stack([load_E.view(processes, -1).sum(1) for load_E in loads])


def busiest(rows_NN: Tensor) -> tuple[int, int]:
    """Return the most rows that a process computes, and the most that it sends to others or receives.

    Args:
        rows_NN: rows from each process to each.
    """
    away_NN = rows_NN - torch.diag(rows_NN.diagonal())
    return int(rows_NN.sum(0).max()), int(torch.maximum(away_NN.sum(0), away_NN.sum(1)).max())


def fit(places: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Lay a line through times by least squares: its start and its slope, neither below 0."""
    slope, start = np.polyfit(places, seconds, 1)
    if start < 0:
        slope, start = np.dot(places, seconds) / np.dot(places, places), 0.0
    if slope < 0:
        slope, start = 0.0, np.mean(seconds)
    return float(start), float(slope)


@cache
def assumed() -> dict[str, Any]:
    """Return everything in `assumed.toml`."""
    return tomllib.loads((Path(__file__).parent / "assumed.toml").read_text(encoding="utf-8"))


def assumed_model(size: str, precision: str) -> SpreadModel:
    """Return the parameters of the formula on the paper's machine.

    Args:
        size: a name in `SIZES`.
        precision: a name in `PRECISIONS`.
    """
    figures = assumed()
    matrices = SIZES[size].parameters
    held = matrices * figures["experts"] // figures["processes"] * PRECISIONS[precision].itemsize
    memory = figures["memory"]["value"]
    return SpreadModel(
        experts_seconds=figures["weight_passes"]["value"] * held / memory,
        seconds_per_row=6 * matrices / figures["flops"][precision]["value"],
        exchange_seconds=figures["latency"]["value"],
        seconds_per_byte=1 / figures["link"]["value"] + figures["row_passes"]["value"] / memory,
    )


def predict() -> list[ParallelCase]:
    """Predict Table 1 on the paper's machine, for the layers of `assumed.toml` in every precision."""
    figures = assumed()
    return [
        _predicted(Case(size=layer["size"], tokens=tokens, experts=figures["experts"], precision=precision))
        for layer in figures["layers"]
        for tokens in layer["tokens"]
        for precision in figures["flops"]
    ]


def _predicted(case: Case) -> ParallelCase:
    processes = assumed()["processes"]
    model = assumed_model(case.size, case.precision)
    layer = SIZES[case.size]
    timings = []
    for share, mixed in SETTINGS:
        timings.append(timing(model, case, processes, share, mixed, None, None))
    return ParallelCase(
        size=case.size,
        d_model=layer.d_model,
        d_hidden=layer.d_hidden,
        experts=case.experts,
        tokens=case.tokens,
        precision=case.precision,
        processes=processes,
        device=assumed()["device"],
        repeats=0,
        environment=None,
        beside=None,
        model=model,
        rows=timings,
    )


def timing(
    model: SpreadModel,
    case: Case,
    processes: int,
    share: float,
    mixed: bool,
    seconds: float | None,
    spread: float | None,
) -> ParallelTiming:
    """Put what was measured at one share beside what the formula predicts of its rows.

    Args:
        seconds: None where nothing was measured.
        spread: distance of their quartiles.
    """
    rows_NN = rows_between(case, processes, share, mixed)
    rows, away = busiest(rows_NN)
    sent = away * SIZES[case.size].d_model * PRECISIONS[case.precision].itemsize
    return ParallelTiming(
        share_top1=share,
        mixed=mixed,
        rows=int(rows_NN.sum()),
        busiest_rows=rows,
        busiest_bytes=sent,
        seconds=seconds,
        spread=spread,
        predicted_seconds=model.predict(rows, sent),
    )
