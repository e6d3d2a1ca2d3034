"""`repro report`: the published files of a scale."""

from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import Results
from repro.cli.console import out, say


def command(
    scale: Annotated[str, typer.Option(help="The scale whose results are put together.")] = "mini",
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a published file is not up to date.")
    ] = False,
    out_folder: Results = Path("results"),
) -> None:
    """Rebuild tables, figures and report.html from finished runs."""
    from repro.report.build import build_report, stale_files
    from repro.run.scales import read_scale

    if scale != "gpu":
        read_scale(scale)
    if not check:
        for path in build_report(out_folder / scale):
            out.print(path)
        return
    stale = stale_files(out_folder / scale)
    for name in stale:
        say(f"{out_folder / scale / name}: not what the runs give; `repro report` rebuilds it")
    if stale:
        raise typer.Exit(1)
