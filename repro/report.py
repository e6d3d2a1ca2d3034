"""Everything that is published of a scale, rebuilt from its finished runs. No torch on this floor."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro import plugins
from repro.errors import UserError
from repro.records import Published


def build_report(scale_folder: Path) -> list[Path]:
    """Write `runs.jsonl` and every table and figure of a scale that has something to say.

    Returns:
        The files written.

    Raises:
        UserError: nothing was measured at this scale, or the folder cannot be written.
    """
    published = Published.read(scale_folder)
    if not published.results and not published.bench:
        raise UserError(f"{scale_folder}: no finished run; see `repro train --help`")
    contents = {}
    if published.results:
        results = published.results.values()
        contents["runs.jsonl"] = "".join(json.dumps(result) + "\n" for result in results)
    for name in plugins.names("tables"):
        table = plugins.load("tables", name)
        rows = table.rows(published)
        if rows:
            contents[table.FILE] = _csv(table.COLUMNS, rows)
    try:
        for name, text in contents.items():
            (scale_folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{scale_folder}: cannot be written ({error.strerror})") from error
    return [*(scale_folder / name for name in contents), *_figures(scale_folder, published)]


def _figures(scale_folder: Path, published: Published) -> list[Path]:
    """Write the figures as SVG and PNG."""
    drawn = {}
    for name in plugins.names("figures"):
        figure = plugins.load("figures", name)
        made = figure.draw(published)
        if made is not None:
            drawn[figure.FILE] = made
    if not drawn:
        return []
    from repro.figures._style import save

    place = scale_folder / "figures"
    try:
        place.mkdir(exist_ok=True)
        return [path for name, made in drawn.items() for path in save(made, place / name)]
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror})") from error


def _csv(columns: Sequence[str], rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
