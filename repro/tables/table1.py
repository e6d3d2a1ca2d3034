"""Table 1: time of one MoE layer when a share of the tokens is sent to one expert, the others to two."""

from collections.abc import Iterator
from typing import Any

from repro import paper
from repro.provenance import code_state
from repro.records import Published
from repro.tables._statistics import rounded

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
)
OURS = "grouped"
FLOOR = "dense"
RIVAL = "transformers-"

Row = dict[str, Any]


def rows(published: Published) -> list[Row]:
    """One row per case, implementation and share. "Time" is forward and backward.

    Computation and times are relative to the same implementation with two experts for every token.
    The paper does not say whether its time includes the backward pass.
    """
    return [row for case in published.bench for row in _case_rows(case)]


def shown(published: Published) -> list[Row]:
    """Of the back-end that training uses: times against the paper's, the floor and the best rival."""
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


def _case_rows(case: Row) -> Iterator[Row]:
    measured = {(one["implementation"], one["share_top1"]): one for one in case["rows"]}
    printed = dict(zip(*(paper.tables()["table1"][key] for key in ("share_top1", "layer_time")), strict=True))
    printed[0.0] = 1.0
    for (name, share), one in measured.items():
        base = measured[name, 0.0]
        computation = one["rows"] / base["rows"]
        time = one["both_seconds"] / base["both_seconds"]
        rivals = [
            other["both_seconds"]
            for (rival, at), other in measured.items()
            if rival.startswith(RIVAL) and at == share
        ]
        dense = measured.get((FLOOR, share))
        yield {
            "Layer": f"{case['d_model']}/{case['d_hidden']}",
            "Experts": case["experts"],
            "Tokens": case["tokens"],
            "Precision": case["precision"],
            "Device": case["environment"]["device"],
            "Implementation": name,
            "Top-1 share": share,
            "Computation": rounded(computation),
            "Time forward": rounded(one["forward_seconds"] / base["forward_seconds"]),
            "Time": rounded(time),
            "Time (paper)": printed.get(share),
            "Time - computation": rounded(time - computation),
            "ms forward": rounded(1000 * one["forward_seconds"]),
            "ms forward spread": _milliseconds(one["forward_spread"]),
            "ms": rounded(1000 * one["both_seconds"]),
            "ms spread": _milliseconds(one["both_spread"]),
            "Against dense rows": rounded(one["both_seconds"] / dense["both_seconds"]) if dense else None,
            "Against best of transformers": rounded(one["both_seconds"] / min(rivals)) if rivals else None,
            "Repeats": case["repeats"],
            "Processor": case["environment"].get("processor"),
            "Code": code_state(case["environment"]),
        }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else rounded(1000 * seconds, 2)
