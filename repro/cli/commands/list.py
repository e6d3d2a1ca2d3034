"""`repro list`: what there is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import Json, Results, quiet_libraries
from repro.cli.console import Row, out, plain_table, print_json, print_rows
from repro.errors import UserError, unknown

LISTS = {
    "tasks": "tasks with their models, metrics and data sets; with --scale sizes and FLOPs",
    "gates": "gates for `--gate`",
    "backends": "expert back-ends for `--experts-backend`",
    "studies": "studies for `repro ablate`",
    "runs": "runs in the results folder; filters: --task, --gate, --state",
}
STATES = ("finished", "not finished")


def command(
    what: Annotated[
        str | None, typer.Argument(help=f"{', '.join(LISTS)}; without it these lists are named.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="With tasks: sizes and FLOPs of the models of this scale.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="With runs: those of this task.")] = None,
    gate: Annotated[str | None, typer.Option(help="With runs: those with this gate.")] = None,
    state: Annotated[str | None, typer.Option(help="With runs: finished, or 'not finished'.")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="With tasks and --scale: plan the training on so many GPUs."),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.1, max=1e6, help="With --gpus: GB of memory of each.")
    ] = None,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """List tasks, gates, expert back-ends, studies or runs."""
    _check_plan(what, scale, gpus, memory)
    if what is None:
        print_rows("lists", [{"list": name, "what": text} for name, text in LISTS.items()], as_json)
        return
    _check(what, scale, task, gate, state)
    if scale is not None and gpus is not None and memory is not None:
        _print_plan(scale, out_folder, gpus, memory, as_json)
        return
    if scale is not None:
        _print_sizes(scale, out_folder, as_json)
        return
    rows = _rows(what, out_folder, task, gate, state)
    if not rows and not as_json:
        out.print(f"no {what} in {out_folder}" if what == "runs" else f"no {what}")
        return
    print_rows(what, rows, as_json)


def _check(what: str, scale: str | None, task: str | None, gate: str | None, state: str | None) -> None:
    """Refuse an unknown list, and options that have no effect on it."""
    if what not in LISTS:
        raise UserError(unknown("list", what, LISTS))
    problems = []
    if scale is not None and what != "tasks":
        problems.append(f"--scale: has no effect on {what!r}; use it with tasks")
    if what != "runs":
        filters = {"--task": task, "--gate": gate, "--state": state}
        problems += [
            f"{option}: has no effect on {what!r}; use it with runs"
            for option, value in filters.items()
            if value is not None
        ]
    if state is not None and state not in STATES:
        problems.append("--state: " + unknown("state", state, STATES))
    if problems:
        raise UserError(*problems)


def _check_plan(what: str | None, scale: str | None, gpus: int | None, memory: float | None) -> None:
    """Refuse the options of a plan where there is nothing to plan, and each without the other."""
    if gpus is None and memory is None:
        return
    given, missing = ("--gpus", "--memory, GB of each") if memory is None else ("--memory", "--gpus")
    if what != "tasks" or scale is None:
        options = [name for name, value in (("--gpus", gpus), ("--memory", memory)) if value is not None]
        raise UserError(
            *(f"{option}: has no effect without a scale; use it with tasks --scale" for option in options)
        )
    if gpus is None or memory is None:
        raise UserError(f"{given}: give {missing}, too")


def _rows(what: str, results: Path, task: str | None, gate: str | None, state: str | None) -> Sequence[Row]:
    from repro.cli.listing import member_rows, run_rows, study_rows, task_rows

    if what == "tasks":
        return task_rows()
    if what == "studies":
        return study_rows()
    if what == "runs":
        return run_rows(results, task=task, gate=gate, state=state)
    return member_rows({"gates": "gates", "backends": "experts"}[what])


def _print_sizes(scale: str, results: Path, as_json: bool) -> None:
    quiet_libraries()
    from repro.cli.sizes import columns, size_rows

    rows = size_rows(scale, results)
    if not as_json:
        out.print(plain_table(columns(rows, 1, 7)), "")
        rows = columns(rows, 7, len(rows[0]))
    print_rows("tasks", rows, as_json)


def _print_plan(scale: str, results: Path, gpus: int, memory: float, as_json: bool) -> None:
    quiet_libraries()
    from repro.cli.memories import for_terminal, memory_rows

    models, rows = memory_rows(scale, results, gpus, memory * 1e9)
    if as_json:
        print_json({"models": models, "ways": rows})
        return
    out.print(plain_table(for_terminal(models)), "")
    titles = {False: "activations kept", True: "with training.gradient_checkpointing"}
    for checkpointing, title in titles.items():
        chosen = [row for row in rows if row["checkpointing"] is checkpointing]
        out.print(f"GB of each of {gpus} GPUs, {title}:")
        out.print(plain_table(for_terminal(chosen)), "")
