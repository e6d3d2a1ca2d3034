"""Everything that is published of a scale, rebuilt from its finished runs. No torch on this floor."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro import plugins
from repro._page import Figure, Section, markdown, page
from repro.errors import UserError
from repro.provenance import code_state
from repro.records import Published
from repro.tables._schemes import share_several

Row = dict[str, Any]
SHOWN = {
    "table3": "table3",
    "table5": "table5_detail",
    "table6": "table6_detail",
    "table4": "table4",
    "gates": "gates",
    "adamoe": "adamoe",
    "table1": "table1",
}
"""Tables of the paper in the order of the report, and the member of `tables` that shows each."""


def build_report(scale_folder: Path) -> list[Path]:
    """Write `runs.jsonl`, every table and figure that has something to say, and the report of a scale.

    Returns:
        The files written.

    Raises:
        UserError: nothing was measured at this scale, or the folder cannot be written.
    """
    files = contents(scale_folder)
    try:
        for name, content in files.items():
            (scale_folder / name).parent.mkdir(exist_ok=True)
            (scale_folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"{scale_folder}: cannot be written ({error.strerror})") from error
    return [scale_folder / name for name in files]


def stale_files(scale_folder: Path) -> list[str]:
    """Published files that differ from what the finished runs give, or are missing.

    Pictures as pixels are left out: their bytes depend on the versions of libraries.

    Raises:
        UserError: nothing was measured at this scale.
    """
    return [
        name
        for name, content in contents(scale_folder).items()
        if not name.endswith(".png")
        and not ((scale_folder / name).is_file() and (scale_folder / name).read_bytes() == content)
    ]


def contents(scale_folder: Path) -> dict[str, bytes]:
    """Name -> content of every file that is published of a scale.

    Raises:
        UserError: nothing was measured at this scale.
    """
    published = Published.read(scale_folder)
    if not published.results and not published.bench:
        raise UserError(f"{scale_folder}: no finished run; see `repro train --help`")
    texts: dict[str, str] = {}
    if published.results:
        results = published.results.values()
        texts["runs.jsonl"] = "".join(json.dumps(result) + "\n" for result in results)
    for name in plugins.names("tables"):
        table = plugins.load("tables", name)
        rows = table.rows(published)
        if rows:
            texts[table.FILE] = _csv(table.COLUMNS, rows)
    figures, pictures = _figures(published)
    title = f"Adaptive gating, scale {scale_folder.name}"
    sections = _sections(published, figures)
    texts["report.md"] = markdown(title, _introduction(published), sections)
    texts["report.html"] = page(title, _introduction(published), sections)
    return {name: text.encode() for name, text in texts.items()} | pictures


def _figures(published: Published) -> tuple[list[Figure], dict[str, bytes]]:
    """The figures that something was measured for, and their files."""
    figures: list[Figure] = []
    files: dict[str, bytes] = {}
    for name in plugins.names("figures"):
        module = plugins.load("figures", name)
        made = module.draw(published)
        if made is None:
            continue
        from repro.figures._style import as_png, as_svg

        svg = as_svg(made)
        files |= {f"figures/{module.FILE}.svg": svg, f"figures/{module.FILE}.png": as_png(made)}
        figures.append(Figure(name=module.FILE, title=module.TITLE, svg=svg.decode()))
    return figures, files


def _introduction(published: Published) -> str:
    tasks = {result["task"] for result in published.results.values()}
    seeds = {result["seed"] for result in published.results.values()}
    return (
        "What was measured, beside the values of Adaptive Gating in Mixture-of-Experts based Language"
        f" Models (EMNLP 2023): {len(published.results)} runs, {len(tasks)} tasks, {len(seeds)} seeds."
        " An empty cell was not measured."
    )


def _sections(published: Published, figures: Sequence[Figure]) -> list[Section]:
    sections = [
        Section(
            title="Claims of the paper",
            text="A claim holds, or does not, if the whole 95 % interval over seeds says so.",
            rows=plugins.load("tables", "claims").rows(published),
        )
    ]
    for name, shown_by in SHOWN.items():
        table = plugins.load("tables", shown_by)
        rows = table.shown(published) if hasattr(table, "shown") else table.rows(published)
        if rows:
            title, _, text = plugins.summary("tables", name).partition(": ")
            notes = table.notes(published) if hasattr(table, "notes") else ()
            sections.append(Section(title=title, text=text[:1].upper() + text[1:], rows=rows, notes=notes))
    if figures:
        sections.append(Section(title="Figures", figures=figures))
    sections.append(Section(title="Circumstances", rows=_circumstances(published)))
    if published.results:
        sections.append(Section(title="Runs", rows=[_run(result) for result in published.results.values()]))
    return [section for section in sections if section.rows or section.figures]


def _circumstances(published: Published) -> list[Row]:
    """On what the runs were made: one row for each machine, setting and state of the code."""
    found: dict[str, Row] = {}
    for result in published.results.values():
        where = result["environment"]
        row = {
            "Runs": 0,
            "Device": where.get("device"),
            "Processor": where.get("processor"),
            "Cores": where.get("cores"),
            "Threads": where.get("threads"),
            "Precision": where.get("precision"),
            "torch": (where.get("packages") or {}).get("torch"),
            "transformers": (where.get("packages") or {}).get("transformers"),
            "Data": result["data"]["source"],
            "Code": code_state(where),
        }
        found.setdefault(json.dumps(row), row)["Runs"] += 1
    return list(found.values())


def _run(result: Row) -> Row:
    return {
        "Run": result["run_id"],
        "Steps": result["steps"],
        "Tokens": result["tokens"],
        "Train s": result["train_seconds"],
        "ms per step": 1000 * result["seconds_per_step"],
        "FLOPs per token": result["flops"]["per_token"],
        "Two experts": share_several("routing")(result),
        "Metric": result["metric"]["name"],
        "Value": result["metric"]["value"],
    }


def _csv(columns: Sequence[str], rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
