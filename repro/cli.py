"""The `repro` command: the only module that reads arguments, prints and exits.

Everything heavy is imported inside a command, so that help and lists answer at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from repro import plugins
from repro._arguments import given, quiet_libraries, require_tensorboard, run_folder
from repro._listing import member_rows, run_rows, task_rows
from repro._terminal import (
    StopRequest,
    TrainingDisplay,
    err,
    out,
    plain_table,
    print_evaluation,
    print_result,
    print_rows,
)
from repro.errors import Interrupted, UserError, unknown

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Adaptive gating in mixture-of-experts language models: train, evaluate, compare.",
)

Results = Annotated[Path, typer.Option("--out", help="Folder of all results.", metavar="DIR")]
Source = Annotated[str | None, typer.Option(help="synthetic, hub, or a data folder.", metavar="SOURCE")]
Folder = Annotated[Path | None, typer.Option(help="Data folder, if not that of the run.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command()
def train(
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
    model: Annotated[
        str | None, typer.Option(help="Start from a pretrained model: a folder or a hub id.")
    ] = None,
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
    from repro.experiments import Override, resolve

    overrides = {key: Override(value, option) for option, (key, value) in given(options, settings).items()}
    if tensorboard:
        require_tensorboard()
    config, places = resolve(
        task=task,
        scale=scale,
        gate=gate,
        seed=seed,
        data=data,
        model=model,
        overrides=overrides,
        results=out_folder,
    )
    from repro.run import execute

    stop = StopRequest()
    with TrainingDisplay() as display:
        display.begin(f"{config.task} {config.gate}")

        def report(record: dict[str, Any]) -> None:
            stop.training = True
            display.show(record)

        result = execute(
            config, places, fresh=fresh, tensorboard=tensorboard, report=report, should_stop=stop
        )
    if not stop.training:
        err.print(f"{config.run_id} was finished before; --fresh trains it again")
    print_result(result, {str(row["name"]): str(row["task"]) for row in task_rows()}, as_json)


@app.command("eval")
def evaluate(
    run: Annotated[str, typer.Argument(help="Run id, or the folder of a run.")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    gate_at_inference: Annotated[
        str, typer.Option(help="same as trained, or top-1: the best expert alone.")
    ] = "same",
    data: Folder = None,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Evaluate the model of a finished run."""
    problems = []
    if split not in ("validation", "test", "train"):
        problems.append("--split: " + unknown("split", split, ["validation", "test", "train"]))
    if gate_at_inference not in ("same", "top-1"):
        problems.append("--gate-at-inference: " + unknown("gate", gate_at_inference, ["same", "top-1"]))
    if problems:
        raise UserError(*problems)
    folder = run_folder(run, out_folder)
    quiet_libraries()
    from repro.records import RunFolder
    from repro.run import evaluate_run

    found = evaluate_run(RunFolder(folder), split=split, gate_at_inference=gate_at_inference, data=data)
    print_evaluation(found, as_json)


@app.command()
def ablate(
    study: Annotated[str, typer.Argument(help="What to compare: schemes (Table 3).")],
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas; all by default.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, with seeds 0, 1, ...")] = 1,
    scale: Annotated[str, typer.Option(help="mini, small or paper: a file in experiments/.")] = "mini",
    data: Source = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of every run.", metavar="KEY=VALUE"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and what they will take; run nothing.")
    ] = False,
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Do the missing runs of a study, one at a time, and write its table.

    Finished runs are not repeated, unfinished ones are continued; a run that fails does not stop the
    others.
    """
    quiet_libraries()
    from repro._study import dry_run_rows, run_study
    from repro.ablation import plan, task_names
    from repro.experiments import Override, read_scale

    study, _ = plugins.resolve("studies", study)
    read_scale(scale)
    runs = plan(
        study,
        tasks=task_names(scale, [name for name in tasks.replace(" ", "").split(",") if name]),
        seeds=seeds,
        scale=scale,
        data=data,
        overrides={key: Override(value, option) for option, (key, value) in given({}, settings).items()},
        results=out_folder,
    )
    if dry_run:
        rows = dry_run_rows(runs)
        print_rows("runs", rows, as_json)
        return
    failed = run_study(study, runs, out_folder / scale, as_json)
    if failed:
        raise typer.Exit(1)


@app.command()
def analyze(
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
    """Show which tokens get two experts: Table 4, Figures 1 and 2, loads, and heat maps of sample texts.

    Runs the saved models of finished runs over their validation split, then rebuilds what is published.
    """
    quiet_libraries()
    from repro._analyze import analyze_all, chosen_runs

    analyze_all(chosen_runs(runs or [], out_folder, scale), data, samples, as_json)


@app.command()
def report(
    scale: Annotated[str, typer.Option(help="The scale whose results are put together.")] = "mini",
    out_folder: Results = Path("results"),
) -> None:
    """Rebuild the published files of a scale from its finished runs."""
    from repro.experiments import read_scale
    from repro.report import build_report

    read_scale(scale)
    for path in build_report(out_folder / scale):
        out.print(path)


@app.command("list")
def list_(
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


# Typer exports the leaves of its usage errors, not their base.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Entry point: errors of the user become one line each and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except UserError as error:
        for problem in error.problems:
            err.print(f"repro: {problem}", markup=False)
        sys.exit(2)
    except _UsageError as error:
        err.print(f"repro: {error.format_message()}", markup=False)
        sys.exit(2)
    except FloatingPointError as error:
        err.print(f"repro: {error}", markup=False)
        sys.exit(1)
    except Interrupted as error:
        err.print(f"repro: {error}; the same command continues", markup=False)
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        err.print("repro: interrupted")
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
