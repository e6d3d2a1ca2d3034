"""`repro report`: the published files of a scale."""

from pathlib import Path
from typing import Annotated

import typer

from repro._arguments import Results
from repro._terminal import out


def command(
    scale: Annotated[str, typer.Option(help="The scale whose results are put together.")] = "mini",
    out_folder: Results = Path("results"),
) -> None:
    """Rebuild the published files of a scale from its finished runs."""
    from repro.experiments import read_scale
    from repro.report import build_report

    read_scale(scale)
    for path in build_report(out_folder / scale):
        out.print(path)
