"""`repro list`: what there is."""

from pathlib import Path
from typing import Annotated

import typer

from repro._arguments import Json, Results, quiet_libraries
from repro._listing import member_rows, run_rows, task_rows
from repro._terminal import out, plain_table, print_rows
from repro.errors import UserError, unknown


def command(
    what: Annotated[str, typer.Argument(help="tasks, gates, backends, studies or runs.")],
    scale: Annotated[
        str | None, typer.Option(help="With tasks: sizes and FLOPs of the models of this scale.")
    ] = None,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """List tasks, gates, expert back-ends, studies or runs."""
    families = {"gates": "gates", "backends": "experts", "studies": "studies"}
    if scale is not None and what != "tasks":
        raise UserError(f"--scale: has no effect on {what!r}; use it with tasks")
    if what == "tasks" and scale is not None:
        quiet_libraries()
        from repro._sizes import columns, size_rows

        rows = size_rows(scale, out_folder)
        if not as_json:
            out.print(plain_table(columns(rows, 1, 7)), "")
            rows = columns(rows, 7, len(rows[0]))
    elif what == "tasks":
        rows = task_rows()
    elif what in families:
        rows = member_rows(families[what])
    elif what == "runs":
        rows = run_rows(out_folder)
    else:
        raise UserError(unknown("list", what, ["tasks", *families, "runs"]))
    if not rows and not as_json:
        out.print(f"no {what} in {out_folder}" if what == "runs" else f"no {what}")
        return
    print_rows(what, rows, as_json)
