"""`repro analyze`: which tokens get two experts, from the saved models of finished runs."""

from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import Folder, Json, Results, quiet_libraries


def command(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Run ids or folders; all runs of --scale by default.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="Without RUN: the scale whose runs are analysed; mini by default.")
    ] = None,
    data: Folder = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Sequences of the validation split; all by default.")
    ] = None,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Show which tokens get two experts: Table 4, Figures 1 and 2.

    With them expert loads and heat maps of sample texts. Runs the saved models of finished runs over
    their validation split, then rebuilds what is published.
    """
    quiet_libraries()
    from repro.cli.analyses import analyze_all, chosen_runs

    analyze_all(chosen_runs(runs or [], out_folder, scale), data, samples, as_json)
