"""Everything that is published of a scale, rebuilt from its finished runs. No torch on this floor."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from repro import plugins
from repro.errors import UserError, one_line
from repro.report.figures import base as figures
from repro.report.page import Picture, markdown, page
from repro.report.sections import introduction, sections
from repro.report.tables import base as tables
from repro.report.tables.base import Row
from repro.results.base import read_bytes
from repro.results.files import json_text, write_file
from repro.results.published import Published

Files: TypeAlias = Mapping[str, Callable[[], bytes]]
"""Name of a published file -> what gives its content; pixels are drawn only when they are asked for."""


def build_report(scale_folder: Path) -> list[Path]:
    """Write `runs.jsonl`, every table and figure that has something to say, and the report of a scale.

    Nothing is written before the contents of all files are there. A picture in pixels is written only if
    its drawing changed: its bytes depend on the versions of libraries.

    Returns:
        The files that are published.

    Raises:
        UserError: nothing was measured at this scale, a file is damaged, or the folder cannot be written.
    """
    files = _files(scale_folder)
    contents = {name: files[name]() for name in _stale(scale_folder, files)}
    for name, content in contents.items():
        path = scale_folder / name
        try:
            path.parent.mkdir(exist_ok=True)
            write_file(path, content)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    return [scale_folder / name for name in files]


def stale_files(scale_folder: Path) -> list[str]:
    """Name the published files that differ from what the finished runs give, or are missing.

    Pictures in pixels are left out.

    Raises:
        UserError: nothing was measured at this scale, or a file is damaged.
    """
    return [name for name in _stale(scale_folder, _files(scale_folder)) if not name.endswith(".png")]


def _stale(scale_folder: Path, files: Files) -> list[str]:
    """Files that differ from what they should be, or are missing; pixels differ if the drawing does."""

    def differs(name: str) -> bool:
        path = scale_folder / name
        if not path.is_file():
            return True
        if path.suffix == ".png":
            return differs(name.removesuffix("png") + "svg")
        return read_bytes(path) != files[name]()

    return [name for name in files if differs(name)]


def _files(scale_folder: Path) -> Files:
    """Everything that is published of a scale.

    Raises:
        UserError: nothing was measured at this scale, or a file is damaged.
    """
    published = Published.read(scale_folder)
    if not (published.results or published.bench or published.parallel or published.thinnings):
        raise UserError(f"{scale_folder}: no finished run; see `repro train --help`")
    texts: dict[str, str] = {}
    if published.results:
        lines = [json_text(result.to_json(), "runs.jsonl") for result in published.results.values()]
        texts["runs.jsonl"] = "".join(f"{line}\n" for line in lines)
    with _in_range(scale_folder):
        rows_by_table = {name: tables.load(name).rows(published) for name in plugins.names("tables")}
        for name, rows in rows_by_table.items():
            if rows:
                table = tables.load(name)
                texts[table.FILE] = _csv(table.COLUMNS, rows)
        pictures, drawings = _pictures(published)
        title = f"Adaptive gating, scale {scale_folder.name}"
        contents = introduction(published), sections(published, scale_folder.name, pictures)
        texts["report.md"] = markdown(title, *contents)
        texts["report.html"] = page(title, *contents)
    return {name: text.encode for name, text in texts.items()} | drawings


@contextmanager
def _in_range(scale_folder: Path) -> Iterator[None]:
    """Say in one line that numbers of the results are too large or too small to compare.

    Raises:
        UserError: a calculation overflowed.
    """
    try:
        yield
    except ArithmeticError as error:
        problem = one_line(error)
        raise UserError(f"{scale_folder}: a result has a number far out of range ({problem})") from error


def _pictures(published: Published) -> tuple[dict[str, Picture], dict[str, Callable[[], bytes]]]:
    """Draw the figures that something was measured for; they, by name, and what gives their files."""
    pictures: dict[str, Picture] = {}
    files: dict[str, Callable[[], bytes]] = {}
    for name in plugins.names("figures"):
        module = figures.load(name)
        figure = module.draw(published)
        if figure is None:
            continue
        from repro.report.style import WIDTH, as_png, as_svg

        svg = as_svg(figure).decode()
        files[f"figures/{module.FILE}.svg"] = svg.encode
        files[f"figures/{module.FILE}.png"] = partial(as_png, figure)
        pictures[module.FILE] = Picture(
            name=module.FILE,
            title=module.TITLE,
            see=module.SEE,
            svg=svg,
            is_wide=figure.get_figwidth() > WIDTH,
        )
    return pictures, files


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        for column, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise OverflowError(f"{column!r} is {value}")
        writer.writerow(row)
    return stream.getvalue()
