"""Everything that is published of a scale, rebuilt from its finished runs. No torch on this floor."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro import plugins
from repro.errors import UserError
from repro.records import finished_runs, read_jsonl


def published_runs(scale_folder: Path) -> list[dict[str, Any]]:
    """The results of a scale: those in its run folders, and those published in `runs.jsonl`.

    Run folders are not kept in git, `runs.jsonl` is; so a fresh clone has the published results, and
    a new run joins them. A run folder stands for its run.
    """
    known = {result["run_id"]: result for result in read_jsonl(scale_folder / "runs.jsonl")}
    known |= {result["run_id"]: result for result in finished_runs(scale_folder)}
    return [known[run_id] for run_id in sorted(known)]


def build_report(scale_folder: Path) -> list[Path]:
    """Write `runs.jsonl` and every table of a scale; the files written.

    Raises:
        UserError: the scale has no finished run, or the folder cannot be written.
    """
    results = published_runs(scale_folder)
    if not results:
        raise UserError(f"{scale_folder}: no finished run; see `repro train --help`")
    contents = {"runs.jsonl": "".join(json.dumps(result) + "\n" for result in results)}
    for name in plugins.names("tables"):
        table = plugins.load("tables", name)
        contents[table.FILE] = _csv(table.COLUMNS, table.rows(results))
    try:
        for name, text in contents.items():
            (scale_folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{scale_folder}: cannot be written ({error.strerror})") from error
    return [scale_folder / name for name in contents]


def _csv(columns: Sequence[str], rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
