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
        str | None,
        typer.Option(help="Data order: cosine, distance, mean, count, length or random."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    experts_backend: Annotated[
        str | None, typer.Option(help="auto, or one of `repro list backends`.")
    ] = None,
    until_loss: Annotated[
        float | None,
        typer.Option(help="Train at the constant rate until the loss on the dev split is down to this."),
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

    A finished run is not repeated, an unfinished one is continued from its checkpoint. With --until-loss the
    steps and seconds to that loss are printed instead; it stops at twice the budget.
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
    from repro.cli.runs import train_and_print

    train_and_print(
        config, paths, until_loss=until_loss, fresh=fresh, tensorboard=tensorboard, as_json=as_json
    )
