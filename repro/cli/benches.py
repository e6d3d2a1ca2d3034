"""`repro bench`: layer timings of every case asked for, into `bench.json` and the tables made of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from math import gcd
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from repro.bench import parallel
from repro.bench.cases import PRECISIONS, SIZES, Case, fitting_experts
from repro.bench.layer import measured_case, names
from repro.bench.prediction import predict
from repro.checks import spelled
from repro.cli.console import err, out, plain_table, print_json
from repro.errors import UserError, unknown
from repro.machine import give_back_freed_memory, reuse_freed_memory
from repro.report.build import build_report
from repro.report.tables import parallel as parallel_table
from repro.report.tables import table1
from repro.report.tables.base import ShownTable
from repro.results.bench import Bench, BenchCase
from repro.results.files import write_json
from repro.results.parallel import ParallelCase
from repro.results.published import Published

_MOST_PROCESSES = 256
"""That are started on one machine."""


def cases(
    sizes: Sequence[str], tokens: Sequence[str], precisions: Sequence[str], experts: int | None
) -> list[Case]:
    """Combine sizes, numbers of tokens and precisions.

    Args:
        experts: of every layer; None for those of the models, or as many as fit into memory.

    Raises:
        UserError: with every name and number that is wrong.
    """
    named = (("--sizes", "size", sizes, SIZES), ("--precision", "precision", precisions, PRECISIONS))
    problems = [
        f"{option}: {unknown(kind, name, valid)}"
        for option, kind, chosen, valid in named
        for name in chosen
        if name not in valid
    ]
    problems += [
        f"{option}: give at least one"
        for option, values in (("--sizes", sizes), ("--tokens", tokens), ("--precision", precisions))
        if not values
    ]
    problems += [
        f"--tokens: expected whole numbers of at least 1, got {text!r}"
        for text in tokens
        if not text.isdecimal() or int(text) < 1
    ]
    problems += [
        f"--experts: a token of the layer {size!r} has {SIZES[size].k} of them; give at least as many"
        for size in sizes
        if size in SIZES and experts is not None and experts < SIZES[size].k
    ]
    if problems:
        raise UserError(*problems)
    counts = {size: fitting_experts(size) if experts is None else experts for size in sizes}
    return [
        Case(size=size, tokens=int(count), experts=counts[size], precision=precision)
        for size, count, precision in product(sizes, tokens, precisions)
    ]


def run_bench(
    chosen: Sequence[Case], *, repeats: int, only: Sequence[str], scale: Path, as_json: bool
) -> None:
    """Measure one case after the other; each is saved when it is done, in place of an older one.

    Raises:
        UserError: an implementation is unknown, a file of the results is damaged, or the folder cannot be
            written.
    """
    strange = [name for name in only if name not in names()]
    if strange:
        raise UserError(*(f"--only: {unknown('implementation', name, names())}" for name in strange))
    Published.read(scale)
    reuse_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _announced(len(chosen)) as announce:
        for case in chosen:
            advance = announce(_title(case), repeats + 1)
            save(scale, measured_case(case, device, repeats=repeats, only=only, progress=advance))
            give_back_freed_memory()
    _show(scale, table1, as_json)


def run_parallel_bench(
    chosen: Sequence[Case], processes: Sequence[str], *, repeats: int, scale: Path, as_json: bool
) -> None:
    """Time layers whose experts are spread over processes of this machine, beside what the formula predicts.

    Raises:
        UserError: a number of processes is none, or does not divide the experts; a process failed; a file of
            the results is damaged, or the folder cannot be written.
    """
    experts = gcd(*(case.experts for case in chosen))
    valid = [str(count) for count in range(2, min(experts, _MOST_PROCESSES) + 1) if experts % count == 0]
    problems = [
        f"--parallel: expected numbers that divide the {experts} experts ({', '.join(valid)}),"
        f" got {spelled(text)!r}"
        for text in processes
        if text not in valid
    ]
    if problems or not processes:
        raise UserError(*(problems or ["--parallel: give at least one number of processes"]))
    Published.read(scale)
    save(scale, *predict())
    with _announced(len(chosen) * len(processes)) as announce:
        for case, count in product(chosen, map(int, processes)):
            advance = announce(f"{_title(case)}, {count} processes", repeats + 1)
            save(scale, parallel.measure(case, count, repeats=repeats, progress=advance))
    _show(scale, parallel_table, as_json)


@contextmanager
def _announced(total: int) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Give a function that announces a case with its rounds; what it returns is called after each of them."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(compact=True),
        console=err,
        disable=not err.is_terminal,
        transient=True,
    )
    number = 0

    def announce(title: str, rounds: int) -> Callable[[], None]:
        nonlocal number
        number += 1
        if not err.is_terminal:
            err.print(f"[{number}/{total}] {title}", markup=False)
        for finished in progress.task_ids:
            progress.remove_task(finished)
        return partial(progress.advance, progress.add_task(title, total=rounds))

    with progress:
        yield announce


def _title(case: Case) -> str:
    return f"{case.size}, {case.tokens} tokens, {case.precision}"


def _show(scale: Path, table: ShownTable, as_json: bool) -> None:
    """Make the tables of the scale, and print one of them."""
    written = build_report(scale)
    published = Published.read(scale)
    if as_json:
        print_json({"table": table.rows(published), "files": [str(path) for path in written]})
        return
    out.print(plain_table(table.shown(published)))
    out.print(str(scale / table.FILE), markup=False)


def save(scale: Path, *measured: BenchCase | ParallelCase) -> None:
    """Put cases into `bench.json`, in place of older measurements of them.

    Raises:
        UserError: the file is damaged, or cannot be written.
    """
    path = scale / "bench.json"
    bench = Bench.read(path) if path.exists() else Bench(cases=[])
    cases = {case.key: case for case in bench.cases}
    spread = {case.key: case for case in bench.parallel}
    for case in measured:
        if isinstance(case, ParallelCase):
            spread[case.key] = case
        else:
            cases[case.key] = case
    bench = Bench(
        cases=[cases[key] for key in sorted(cases)], parallel=[spread[key] for key in sorted(spread)]
    )
    try:
        scale.mkdir(parents=True, exist_ok=True)
        write_json(path, bench.to_json())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
