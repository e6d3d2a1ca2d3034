"""The rows of `repro list`; nothing here loads torch."""

from pathlib import Path
from typing import Any

from repro import plugins
from repro._terminal import number
from repro.records import RunFolder, read_json

Row = dict[str, Any]


def task_rows() -> list[Row]:
    """Every task with its title in the paper, model, metric and data set."""
    rows = []
    for name in plugins.names("tasks"):
        facts = plugins.constants("tasks", name)
        hub, folders = facts["HUB"], facts["FOLDERS"]
        assert isinstance(hub, tuple)
        assert isinstance(folders, tuple)
        rows.append(
            {
                "name": name,
                "task": facts["TITLE"],
                "model": facts["BACKBONE"],
                "metric": facts["METRIC"],
                "data set": hub[0],
                "folder": " or ".join(folders),
            }
        )
    return rows


def member_rows(family: str) -> list[Row]:
    """Every member of a family, as it is typed, with the first line of its documentation."""
    rows = []
    for name in plugins.names(family):
        typed = name.replace("_", "-") if family == "gates" else name
        typed += " (top-1, top-2, ...)" if typed == "top-k" else ""
        rows.append({"name": typed, "what": plugins.summary(family, name)})
    return rows


def run_rows(results: Path) -> list[Row]:
    """Every run below a results folder, finished or not."""
    rows = []
    for config in sorted(results.glob("*/runs/*/config.json")):
        folder = RunFolder(config.parent)
        row = {"scale": config.parent.parent.parent.name, "run": config.parent.name}
        row |= {"state": "not finished", "metric": "", "train s": ""}
        if folder.result.exists():
            result = read_json(folder.result)
            metric = result["metric"]
            row["state"] = result["status"]
            row["metric"] = f"{metric['name']} {number(metric['value'])}"
            row["train s"] = f"{result['train_seconds']:.1f}"
        rows.append(row)
    return rows
