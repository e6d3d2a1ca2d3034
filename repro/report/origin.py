"""Where the rows of a table come from: code, machine and command of their runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from repro.results.published import Published
from repro.results.run import RunResult

ORIGIN = ("Code", "Processor", "Command")
"""Columns of every table whose rows are of runs."""


def origin_cells(runs: Sequence[RunResult], commands: Mapping[str, str]) -> dict[str, str | None]:
    """Name the states of the code, machines and commands of runs, each once; None of no run.

    Args:
        commands: run id -> the command that asked for it.
    """
    cells = (
        [_code(run) for run in runs],
        [run.environment.machine for run in runs],
        [commands[run.run_id] for run in runs if run.run_id in commands],
    )
    return {name: "; ".join(dict.fromkeys(cell)) or None for name, cell in zip(ORIGIN, cells, strict=True)}


def mixtures(comparisons: Iterable[tuple[str, Sequence[RunResult]]]) -> Iterator[str]:
    """Say in one line each which comparisons are of several states of the code, or of several machines.

    Args:
        comparisons: what is compared, with all of its runs; one that comes in parts has one name in all.
    """
    runs_by_name: dict[str, list[RunResult]] = {}
    for name, runs in comparisons:
        runs_by_name.setdefault(name, []).extend(runs)
    for name, runs in runs_by_name.items():
        codes = dict.fromkeys(map(_code, runs))
        machines = dict.fromkeys(run.environment.machine for run in runs)
        if len(codes) > 1:
            yield f"{name}: runs of {len(codes)} states of the code ({', '.join(codes)})"
        if len(machines) > 1:
            yield f"{name}: runs of {len(machines)} kinds of machines ({'; '.join(machines)})"


def mixed_studies(published: Published) -> list[str]:
    """Say which comparisons mix code or machines: a comparison is a task of a study."""
    return list(
        mixtures(
            (f"study {study}, {task}", [run for runs in variants.values() for run in runs])
            for study in published.studies
            for task, variants in published.of_study(study).items()
        )
    )


def _code(run: RunResult) -> str:
    return run.environment.code_state or "unknown"
