"""Print tables, results and JSON: rows on stdout, messages on stderr."""

from __future__ import annotations

import json
import logging
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from repro import paper
from repro.report.numbers import quantity

if TYPE_CHECKING:
    from repro.results.run import EvalResult, RunResult
    from repro.run.until import TimeToLoss

Cell = str | int | float | None
Row = Mapping[str, Cell]

# Of the processes of one launch, the first speaks.
_SILENT = os.environ.get("RANK", "0") != "0"
# Everything may hold what a user named: `[v2]` in a path is no markup, and `:x:` no emoji.
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=_SILENT)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=_SILENT)


class _Notices(logging.Handler):
    """Prints the notices of other modules, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            say(message)


_OF_A_TASK = {"Task", "Metric"}
"""Columns of a table that are the same in all rows of a task."""
_LONGEST = 1500
"""Characters of a line on stderr."""


def say(problem: str) -> None:
    """Print a problem or a notice on stderr, on one line whatever stands in what it names.

    Of one that is too long beginning and end are left: what it is about, and the way out.
    """
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in problem)
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 3 :]}"
    err.print(f"repro: {line}")


@contextmanager
def printed_notices() -> Iterator[None]:
    """Print on stderr what `errors.notice` tells while a command runs."""
    logger, handler = logging.getLogger("repro"), _Notices()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def plain_table(rows: Sequence[Row]) -> Table:
    """Lay out rows of equal keys: four digits of a number, three of a large one, nothing for None.

    What is too wide for the terminal is wrapped between words. Numbers are never cut; a path in another
    column may be, and a name in the first one where that is not enough.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    columns = list(rows[0]) if rows else []
    numeric = [any(isinstance(row[column], int | float) for row in rows) for column in columns]
    cells = [[_cell(row[column]) for row in rows] for column in columns]
    words = [
        max(map(len, [*column.split(), *" ".join(texts).split()]), default=1)
        for column, texts in zip(columns, cells, strict=True)
    ]
    least = [
        width if place == 0 or is_number else min(width, _LEAST)
        for place, (width, is_number) in enumerate(zip(words, numeric, strict=True))
    ]
    longest = [max(width, *map(len, texts)) for width, texts in zip(words, cells, strict=True)]
    room = out.width - len(columns) + 1
    widths = _narrowed(longest, least, room)
    widths = _narrowed(widths, [_LEAST, *least[1:]], room)
    for place, column in enumerate(columns):
        table.add_column(
            # Wrapped here: a table that fits needs no columns cut.
            textwrap.fill(column.strip(), words[place]),
            justify="right" if numeric[place] else "left",
            overflow="fold",
            width=widths[place],
        )
    for texts in zip(*cells, strict=True):
        table.add_row(*texts)
    return table


_LEAST = 12
"""Characters that are left of a column of words."""


def _narrowed(longest: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Take from the columns with most to spare until all fit, or nothing is left to take."""
    widths = list(longest)
    while sum(widths) > room:
        spare = [width - end for width, end in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            break
        widths[spare.index(max(spare))] -= 1
    return widths


def without_repeats(rows: Sequence[Row]) -> list[Row]:
    """Leave out the task and metric of a row where they are those of the row above."""
    shown: list[Row] = []
    for row, above in zip(rows, [None, *rows], strict=False):
        is_same = above is not None and all(row.get(name) == above.get(name) for name in _OF_A_TASK)
        shown.append({**row, **dict.fromkeys(_OF_A_TASK & row.keys())} if is_same else row)
    return shown


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and abs(value) >= 1e5:
        return quantity(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def result_table(result: RunResult, title: str) -> Table:
    """Lay out a run as a row of Table 3, without the columns that need other runs."""
    table = Table(box=None, pad_edge=False)
    table.add_column("Task", overflow="fold", min_width=8)
    table.add_column("Scheme", overflow="fold")
    for name in ("Train s", "ms/step", "FLOPs/token", "Two", result.metric.name, "top-1"):
        table.add_column(name, justify="right", overflow="fold")
    share = result.routing.share_multi_expert if result.routing else None
    table.add_row(
        title,
        result.gate,
        f"{result.train_seconds:.1f}",
        f"{1000 * result.seconds_per_step:.0f}",
        quantity(result.flops.per_token),
        "" if share is None else f"{share:.1%}",
        number(result.metric.value),
        number(result.metric_top1.value) if result.metric_top1 else "",
    )
    return table


def number(value: float | None) -> str:
    """Format four digits, or say that there is no finite number."""
    return "not finite" if value is None else f"{value:.4g}"


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    if not _SILENT:
        print(json.dumps(value))


def print_rows(what: str, rows: Sequence[Row], as_json: bool) -> None:
    """Print a list, as a table or as `{what: rows}`."""
    if as_json:
        print_json({what: rows})
    else:
        out.print(plain_table(rows))


def print_result(result: RunResult, title: str, as_json: bool) -> None:
    """Print the row that a finished run adds to Table 3, and the paper's."""
    if as_json:
        print_json(result.to_json())
        return
    out.print(result_table(result, title))
    row = paper.scheme(result.task, result.gate)
    if row:
        flops = quantity(row["flops"])
        out.print(f"paper, with its own model and data: {row['performance']:g}, {flops} FLOPs")
    out.print(result.run_id)


def print_time_to_loss(reached: TimeToLoss, as_json: bool) -> None:
    """Print when a run reached a loss."""
    if as_json:
        print_json(reached.to_json())
        return
    if reached.steps is None:
        steps, last = reached.trained_steps, number(reached.last_loss)
        out.print(f"loss {number(reached.loss)} not reached in {steps} steps; the last was {last}")
    else:
        seconds = number(reached.train_seconds)
        out.print(f"loss {number(reached.loss)} after {reached.steps:.0f} steps, {seconds} s of training")
    out.print(reached.run_id)


def print_evaluation(evaluation: EvalResult, as_json: bool) -> None:
    """Print the evaluation of a finished run on a split."""
    if as_json:
        print_json(evaluation.to_json())
        return
    split, gate = evaluation.split, evaluation.gate_at_inference
    out.print(f"{evaluation.run_id} {split}, gate at inference: {gate}")
    for name, value in evaluation.metrics.items():
        out.print(f"  {name} {value!r}")
    out.print(f"  loss {evaluation.eval_loss!r}, {evaluation.metric.count} examples")
