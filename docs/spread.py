"""Tables about a layer whose experts are spread over processes; for `generate.py`."""

import csv
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from repro import paper

ROOT = Path(__file__).parent.parent
Rows = Sequence[Mapping[str, str]]
Table = tuple[Sequence[str], Iterator[Sequence[str]]]
"""Heads and rows."""
_CASE = ("Layer", "Tokens", "Precision", "Processes", "Device")


def layers(file: Path) -> Table:
    """Return a line for each case of `parallel.csv`; of a measured one its times, then the formula's."""
    shares = [f"{share:.0%} one expert" for share in _shares()]
    heads = ("layer", "tokens", "precision", "processes", "", "ms", *shares)
    return (*heads, "constant", "waiting, at most", "bytes", "mixed"), _layers(file)


def _layers(file: Path) -> Iterator[Sequence[str]]:
    nothing = ("",) * 4
    computation, time = (paper.tables()["table1"][name] for name in ("computation", "layer_time"))
    yield ("operations", "", "", "", "", "", *(f"{value:.2f}" for value in computation), *nothing)
    yield ("paper", "", "", "8", "", "", *(f"{value:.2f}" for value in time), *nothing)
    with file.open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    cases = [list(rows) for _, rows in groupby(found, lambda row: [row[column] for column in _CASE])]
    # Measured ones first; the sort is stable.
    for rows in sorted(cases, key=lambda rows: rows[0]["ms"] == ""):
        yield from _case(rows)


def _case(rows: Rows) -> Iterator[Sequence[str]]:
    alike = {float(row["Top-1 share"]): row for row in rows if row["Processes are"] == "alike"}
    (mixed,) = (row for row in rows if row["Processes are"] == "mixed")
    first = rows[0]
    names = [first[column] for column in _CASE[:-1]]
    waiting = max(float(row["Share of waiting"]) for row in alike.values())
    parts = [f"{float(alike[0.0]['Share constant']):.0%}", f"{waiting:.0%}"]
    parts.append(f"{float(alike[0.0]['Share of bytes']):.0%}")
    if first["ms"]:
        label = f"measured, {float(first['Busy beside'] or 0):.1f} CPUs busy beside"
        yield (*names, label, *_times(alike, mixed, "Time", "ms", ["", "", ""]))
        names = [""] * len(names)
    yield (*names, "formula", *_times(alike, mixed, "Time predicted", "ms predicted", parts))


def _times(
    alike: Mapping[float, Mapping[str, str]],
    mixed: Mapping[str, str],
    time: str,
    milliseconds: str,
    parts: Sequence[str],
) -> Iterator[str]:
    yield f"{float(alike[0.0][milliseconds]):.3g}"
    for share in _shares():
        yield f"{float(alike[share][time]):.2f}"
    yield from parts
    yield f"{2 * float(mixed[time]) / (float(alike[1.0][time]) + float(alike[0.0][time])):.2f}"


def _shares() -> list[float]:
    shares: list[float] = paper.tables()["table1"]["share_top1"]
    return shares


def needed() -> Table:
    """Return what would give the paper its times: a constant share, or a load that is less even."""
    heads = ("one expert", "operations", "time (paper)", "constant needed", "busiest over mean needed")
    return heads, _needed()


def _needed() -> Iterator[Sequence[str]]:
    table = paper.tables()["table1"]
    for share, rows, time in zip(table["share_top1"], table["computation"], table["layer_time"], strict=True):
        constant, busiest = (time - rows) / (1 - rows), time / rows
        yield f"{share:.0%}", f"{rows:.2f}", f"{time:.2f}", f"{constant:.0%}", f"{busiest:.2f}"


def assumed() -> Table:
    """Return the figures that are assumed of the paper's machine."""
    return ("figure", "value", "from"), _assumed()


def _assumed() -> Iterator[Sequence[str]]:
    text = (ROOT / "repro" / "bench" / "assumed.toml").read_text(encoding="utf-8")
    figures = tomllib.loads(text)
    named = {f"products in {precision}": figure for precision, figure in figures["flops"].items()}
    named |= {
        "memory": figures["memory"],
        "link": figures["link"],
        "latency": figures["latency"],
        "passes over weights": figures["weight_passes"],
        "passes over rows": figures["row_passes"],
    }
    for name, figure in named.items():
        yield name, f"{figure['value']:g} {figure['unit']}", figure["source"]
