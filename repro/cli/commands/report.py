"""`repro report`: tables, figures and report of a scale, and what of them is published."""

from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import Results
from repro.cli.console import out, say
from repro.errors import UserError


def command(
    scale: Annotated[
        str | None,
        typer.Option(help="The scale; mini by default, with --check every published one."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Write results/published/<scale> from results/<scale>.")
    ] = False,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Publish also what is of several states of the code or machines."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; fail if a published file is not what its runs give."),
    ] = False,
    out_folder: Results = Path("results"),
) -> None:
    """Rebuild tables, figures and report.html from finished runs."""
    from repro.report import publish as publishing
    from repro.report.build import build_report
    from repro.run.scales import read_scale

    problems = []
    if check and publish:
        problems.append("--publish: has no effect with --check; give one or the other")
    if mixed and not publish:
        problems.append("--mixed: has no effect without --publish")
    if problems:
        raise UserError(*problems)
    if scale not in (None, "gpu"):
        read_scale(scale)
    if check:
        stale = publishing.stale_published(out_folder, scale)
        for path in stale:
            say(f"{path}: not what the published runs give; `repro report --publish` writes it")
        if stale:
            raise typer.Exit(1)
        return
    scale = scale or "mini"
    if publish:
        written = publishing.publish(out_folder, scale, mixed=mixed)
    else:
        written = build_report(out_folder / scale)
    for path in written:
        out.print(path)
