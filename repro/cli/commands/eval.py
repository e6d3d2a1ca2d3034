"""`repro eval`: the model of a finished run on a split of its data, or a pretrained MoE model with a gate."""

from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import Folder, Json, Results, quiet_libraries, run_folder, settings_by_option
from repro.cli.console import print_evaluation
from repro.errors import UserError, unknown

_SPLITS = ["test", "validation", "dev", "train"]


def command(
    run: Annotated[
        str, typer.Argument(help="Run id, the folder of a run, or with --gate a pretrained MoE model.")
    ],
    split: Annotated[str, typer.Option(help="test, validation, dev or train.")] = "validation",
    gate_at_inference: Annotated[
        str, typer.Option(help="same as trained, or top-1: the best expert alone.")
    ] = "same",
    gate: Annotated[
        str | None, typer.Option(help="In front of a pretrained MoE model's experts, without training.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Of the gate.")] = None,
    task: Annotated[str | None, typer.Option(help="With --gate: on what; wikitext by default.")] = None,
    scale: Annotated[str | None, typer.Option(help="With --gate: a file in experiments/; mini.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --gate: a setting, e.g. gate.combine=raw.", metavar="KEY=VALUE"),
    ] = None,
    data: Folder = None,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Evaluate the model of a finished run, or one with another gate.

    With --gate the model is a folder or a hub id: of a pretrained Mixtral, OLMoE or Qwen MoE, or the model of
    a run with top-k. It is evaluated beside its own top-k, and nothing is trained.
    """
    problems = []
    if split not in _SPLITS:
        problems.append("--split: " + unknown("split", split, _SPLITS))
    if gate_at_inference not in ("same", "top-1"):
        problems.append("--gate-at-inference: " + unknown("gate", gate_at_inference, ["same", "top-1"]))
    if gate is None:
        of_gate = {"--threshold": threshold, "--task": task, "--scale": scale, "--set": settings or None}
        problems += [
            f"{option}: has no effect without --gate; a run has its own"
            for option, value in of_gate.items()
            if value is not None
        ]
    elif gate_at_inference != "same":
        problems.append("--gate-at-inference: has no effect with --gate; use --gate top-1")
    if problems:
        raise UserError(*problems)
    quiet_libraries()
    if gate is not None:
        from repro.cli.thinning import evaluate_gate, request

        options = settings_by_option({"--threshold": ("gate.threshold", threshold)}, settings)
        asked = request(
            run, task=task or "wikitext", scale=scale or "mini", data=data, split=split, options=options
        )
        evaluate_gate(asked, gate, as_json)
        return
    folder = run_folder(run, out_folder)
    from repro.results.files import RunFolder
    from repro.run.evaluate import evaluate_run

    evaluation = evaluate_run(
        RunFolder(folder),
        split=split,
        gate_at_inference="top-1" if gate_at_inference == "top-1" else "same",
        data=data,
    )
    print_evaluation(evaluation, as_json)
