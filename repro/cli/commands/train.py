"""`repro train`: one run."""

from pathlib import Path
from typing import Annotated

import typer

from repro.cli.arguments import (
    Json,
    Model,
    Results,
    Source,
    quiet_libraries,
    require_tensorboard,
    settings_by_option,
)
from repro.cli.console import err, print_result
from repro.cli.progress import StopRequest, TrainingDisplay


def command(
    task: Annotated[str, typer.Option(help="What to learn; see `repro list tasks`.")],
    gate: Annotated[str, typer.Option(help="dense, top-1, top-2, adaptive ...; see `repro list gates`.")],
    threshold: Annotated[
        float | None, typer.Option(help="Two experts if the gap of the two best is at most this.")
    ] = None,
    scale: Annotated[str, typer.Option(help="mini, small or paper: a file in experiments/.")] = "mini",
    data: Source = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training data.")] = None,
    curriculum: Annotated[
        str | None, typer.Option(help="Data order: cosine, count, length or random.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    experts_backend: Annotated[
        str | None, typer.Option(help="auto, or one of `repro list backends`.")
    ] = None,
    model: Model = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, e.g. experts.init=upcycle.", metavar="KEY=VALUE"),
    ] = None,
    out_folder: Results = Path("results"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard an earlier run.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log to TensorBoard, in the run's folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train one run, evaluate it, and print the row it adds to Table 3.

    A finished run is not repeated, an unfinished one is continued from its checkpoint.
    """
    options = {
        "--threshold": ("gate.threshold", threshold),
        "--steps": ("training.steps", steps),
        "--epochs": ("training.epochs", epochs),
        "--curriculum": ("training.curriculum", curriculum),
        "--precision": ("training.precision", precision),
        "--experts-backend": ("experts.backend", experts_backend),
    }
    quiet_libraries()
    from repro.run.contradictions import Override
    from repro.run.resolve import resolve

    overrides = {
        key: Override(value, option) for option, (key, value) in settings_by_option(options, settings).items()
    }
    if tensorboard:
        require_tensorboard()
    config, paths = resolve(
        task=task,
        scale=scale,
        gate=gate,
        seed=seed,
        data=data,
        model=model,
        overrides=overrides,
        results=out_folder,
    )
    from repro.run.execute import execute
    from repro.tasks.base import load as load_task
    from repro.training.state import Progress

    stop = StopRequest()
    with TrainingDisplay() as display:

        def report(progress: Progress) -> None:
            stop.training = True
            display.show(f"{config.task} {config.gate}", progress)

        result = execute(config, paths, fresh=fresh, tensorboard=tensorboard, report=report, should_stop=stop)
    if not stop.training:
        changed = "; ".join(result.environment.changed)
        origin = f" with other code or libraries ({changed})" if changed else ""
        err.print(f"{config.run_id} was finished before{origin}; --fresh trains it again", markup=False)
    print_result(result, load_task(config.task).TITLE, as_json)
