"""Table 1: time of one MoE layer when a share of the tokens is sent to one expert, the others to two."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro import paper
from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.results.bench import BenchCase, LayerTiming
from repro.results.published import Published

FILE = "table1.csv"
COLUMNS = (
    "Layer",
    "Experts",
    "Tokens",
    "Precision",
    "Device",
    "Implementation",
    "Top-1 share",
    "Computation",
    "Time forward",
    "Time",
    "Time (paper)",
    "Time - computation",
    "ms forward",
    "ms forward spread",
    "ms",
    "ms spread",
    "Against dense rows",
    "Against best of transformers",
    "Repeats",
    "Processor",
    "Code",
    "Command",
)
OURS = "grouped"
FLOOR = "dense"
RIVAL = "transformers-"


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One implementation at one share of top-1 tokens, beside the others of its case."""

    case: BenchCase
    timing: LayerTiming
    base: LayerTiming
    """The same implementation with two experts for every token."""
    dense: LayerTiming | None
    """One FFN over as many rows."""
    rivals: Sequence[LayerTiming]
    """The implementations of transformers at this share."""

    @property
    def layer(self) -> str:
        """Width and hidden width of the layer."""
        return f"{self.case.d_model}/{self.case.d_hidden}"

    @property
    def computation(self) -> float:
        """Expert rows, relative to two experts for every token."""
        return self.timing.rows / self.base.rows

    @property
    def time(self) -> float:
        """Time of forward and backward pass, relative to two experts for every token."""
        return self.timing.both_seconds / self.base.both_seconds


def layer_times(published: Published) -> Iterator[LayerTime]:
    """Iterate over every case, implementation and share."""
    for case in published.bench:
        timings = {(timing.implementation, timing.share_top1): timing for timing in case.rows}
        for (name, share), timing in timings.items():
            yield LayerTime(
                case=case,
                timing=timing,
                base=timings[name, 0.0],
                dense=timings.get((FLOOR, share)),
                rivals=[
                    other for (rival, at), other in timings.items() if rival.startswith(RIVAL) and at == share
                ],
            )


def rows(published: Published) -> list[Row]:
    """Derive one row per case, implementation and share. "Time" is forward and backward.

    Computation and times are relative to the same implementation with two experts for every token.
    The paper does not say whether its time includes the backward pass.
    """
    return [_row(one) for one in layer_times(published)]


def shown(published: Published) -> list[Row]:
    """Derive rows of the back-end that training uses: times beside the paper's, the floor, the best rival."""
    return [
        {
            "Layer": row["Layer"],
            "Tokens": row["Tokens"],
            "Prec.": row["Precision"],
            "Top-1": row["Top-1 share"],
            "Compute": row["Computation"],
            "Time": row["Time"],
            "(paper)": row["Time (paper)"],
            "ms": row["ms"],
            "/ dense": row["Against dense rows"],
            "/ best HF": row["Against best of transformers"],
        }
        for row in rows(published)
        if row["Implementation"] == OURS
    ]


def notes(published: Published) -> list[str]:
    """Return none: the rows need no remark."""
    return []


def _row(one: LayerTime) -> Row:
    case, timing = one.case, one.timing
    best = min((rival.both_seconds for rival in one.rivals), default=None)
    return {
        "Layer": one.layer,
        "Experts": case.experts,
        "Tokens": case.tokens,
        "Precision": case.precision,
        "Device": case.environment.device,
        "Implementation": timing.implementation,
        "Top-1 share": timing.share_top1,
        "Computation": rounded(one.computation),
        "Time forward": rounded(timing.forward_seconds / one.base.forward_seconds),
        "Time": rounded(one.time),
        "Time (paper)": paper.layer_time(timing.share_top1),
        "Time - computation": rounded(one.time - one.computation),
        "ms forward": rounded(1000 * timing.forward_seconds),
        "ms forward spread": _milliseconds(timing.forward_spread),
        "ms": rounded(1000 * timing.both_seconds),
        "ms spread": _milliseconds(timing.both_spread),
        "Against dense rows": rounded(timing.both_seconds / one.dense.both_seconds) if one.dense else None,
        "Against best of transformers": rounded(timing.both_seconds / best) if best else None,
        "Repeats": case.repeats,
        "Processor": case.environment.processor,
        "Code": case.environment.code_state,
        "Command": _command(case),
    }


def _command(case: BenchCase) -> str:
    """Return the command that times a case."""
    options = {"sizes": case.size, "tokens": case.tokens, "precision": case.precision}
    options |= {"experts": case.experts, "repeats": case.repeats}
    return " ".join(["repro bench", *(f"--{name} {value}" for name, value in options.items())])


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else rounded(1000 * seconds, 2)
