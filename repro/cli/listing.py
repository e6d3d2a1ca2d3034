"""The rows of `repro list`; nothing here loads torch."""

from pathlib import Path

from repro import plugins
from repro.cli.console import number
from repro.errors import UserError
from repro.results.files import RunFolder
from repro.results.run import RunIdentity, read_result
from repro.study.definition import load_study, study_names
from repro.tasks.base import load

Row = dict[str, str]
"""Column -> cell."""


def task_rows() -> list[Row]:
    """List every task with its title in the paper, model, metric and data set."""
    tasks = {name: load(name) for name in plugins.names("tasks")}
    return [
        {
            "name": name,
            "task": task.TITLE,
            "model": task.BACKBONE,
            "metric": task.METRIC,
            "data set": task.HUB[0],
            "folder": " or ".join(task.FOLDERS),
        }
        for name, task in tasks.items()
    ]


def member_rows(family: str) -> list[Row]:
    """List every member of a family, as it is typed, with the first line of its documentation."""
    rows = []
    for name in plugins.names(family):
        typed = name.replace("_", "-") if family == "gates" else name
        typed += " (top-1, top-2, ...)" if typed == "top-k" else ""
        rows.append({"name": typed, "what": plugins.summary(family, name)})
    return rows


def study_rows() -> list[Row]:
    """List every study with its title."""
    return [{"name": name, "what": load_study(name).title} for name in study_names()]


def run_rows(
    results: Path, *, task: str | None = None, gate: str | None = None, state: str | None = None
) -> list[Row]:
    """List the runs below a results folder.

    Args:
        task: only runs of this task.
        gate: only runs with this gate, as its name is typed.
        state: only `finished` runs, or those `not finished`.

    Raises:
        UserError: the task or gate is unknown; or with one line for each damaged file.
    """
    if task is not None:
        task = plugins.resolve("tasks", task, where="--task: ")[0]
    if gate is not None:
        plugins.resolve("gates", gate, where="--gate: ")
        gate = gate.replace("_", "-")
    rows = []
    problems: list[str] = []
    for path in sorted(path for path in results.glob("*/runs/*") if path.is_dir() and any(path.iterdir())):
        folder = RunFolder(path)
        try:
            run = RunIdentity.read(folder.config)
            result = read_result(folder.result) if folder.result.exists() else None
        except UserError as error:
            problems += [f"{problem}; delete its folder to train it again" for problem in error.problems]
            continue
        now = "finished" if result else "not finished"
        if task not in (None, run.task) or gate not in (None, run.gate) or state not in (None, now):
            continue
        row = {"scale": path.parent.parent.name, "run": path.name}
        row |= {"state": now, "metric": "", "train s": ""}
        if result:
            row["metric"] = f"{result.metric.name} {number(result.metric.value)}"
            row["train s"] = f"{result.train_seconds:.1f}"
        rows.append(row)
    if problems:
        raise UserError(*problems)
    return rows
