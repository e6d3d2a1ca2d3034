"""`repro eval`: the model of a finished run on a split of its data."""

from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import Folder, Json, Results, quiet_libraries, run_folder
from repro.cli.console import print_evaluation
from repro.errors import UserError, unknown

_SPLITS = ["test", "validation", "dev", "train"]


def command(
    run: Annotated[str, typer.Argument(help="Run id, or the folder of a run.")],
    split: Annotated[str, typer.Option(help="test, validation, dev or train.")] = "validation",
    gate_at_inference: Annotated[
        str, typer.Option(help="same as trained, or top-1: the best expert alone.")
    ] = "same",
    data: Folder = None,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Evaluate the model of a finished run."""
    problems = []
    if split not in _SPLITS:
        problems.append("--split: " + unknown("split", split, _SPLITS))
    if gate_at_inference not in ("same", "top-1"):
        problems.append("--gate-at-inference: " + unknown("gate", gate_at_inference, ["same", "top-1"]))
    if problems:
        raise UserError(*problems)
    folder = run_folder(run, out_folder)
    quiet_libraries()
    from repro.results.files import RunFolder
    from repro.run.evaluate import evaluate_run

    evaluation = evaluate_run(
        RunFolder(folder),
        split=split,
        gate_at_inference="top-1" if gate_at_inference == "top-1" else "same",
        data=data,
    )
    print_evaluation(evaluation, as_json)
