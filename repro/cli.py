"""The `repro` command: the only module that reads arguments, prints and exits.

Everything heavy is imported inside a command, so that help and lists answer at once.
"""

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from repro import paper
from repro._listing import member_rows, run_rows, task_rows
from repro._terminal import StopRequest, TrainingDisplay, err, out, quantity, result_table
from repro.errors import Interrupted, UserError, unknown

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Adaptive gating in mixture-of-experts language models: train, evaluate, compare.",
)

Results = Annotated[Path, typer.Option("--out", help="Folder of all results.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command()
def train(
    task: Annotated[str, typer.Option(help="What to learn; see `repro list tasks`.")],
    gate: Annotated[str, typer.Option(help="dense, top-1, top-2, adaptive ...; see `repro list gates`.")],
    threshold: Annotated[
        float | None, typer.Option(help="Two experts if the gap of the two best is at most this.")
    ] = None,
    scale: Annotated[str, typer.Option(help="mini, small or paper: a file in experiments/.")] = "mini",
    data: Annotated[
        str | None, typer.Option(help="synthetic, hub, or a data folder.", metavar="SOURCE")
    ] = None,
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
    _quiet_libraries()
    from repro.experiments import Override, resolve

    overrides = {key: Override(value, option) for option, (key, value) in _given(options, settings).items()}
    if tensorboard:
        _require_tensorboard()
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
    with TrainingDisplay(f"{config.task} {config.gate}") as display:

        def report(record: dict[str, Any]) -> None:
            stop.training = True
            display.show(record)

        result = execute(
            config, places, fresh=fresh, tensorboard=tensorboard, report=report, should_stop=stop
        )
    if not stop.training:
        err.print(f"{config.run_id} was finished before; --fresh trains it again")
    _print_results(result, as_json)


@app.command("eval")
def evaluate(
    run: Annotated[str, typer.Argument(help="Run id, or the folder of a run.")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    gate_at_inference: Annotated[
        str, typer.Option(help="same as trained, or top-1: the best expert alone.")
    ] = "same",
    data: Annotated[
        Path | None, typer.Option(help="Data folder, if not that of the run.", metavar="DIR")
    ] = None,
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
    folder = _run_folder(run, out_folder)
    _quiet_libraries()
    from repro.records import RunFolder
    from repro.run import evaluate_run

    found = evaluate_run(RunFolder(folder), split=split, gate_at_inference=gate_at_inference, data=data)
    if as_json:
        print(json.dumps(found))
        return
    metric = found["metric"]
    out.print(f"{found['run_id']} {split}, gate at inference: {gate_at_inference}")
    for name, value in found["metrics"].items():
        out.print(f"  {name} {value!r}")
    out.print(f"  loss {found['eval_loss']!r}, {metric['count']} examples")


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
    what: Annotated[str, typer.Argument(help="tasks, gates, backends or runs.")],
    out_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """List tasks, gates, expert back-ends or runs."""
    if what == "tasks":
        rows = task_rows()
    elif what in ("gates", "backends"):
        rows = member_rows({"gates": "gates", "backends": "experts"}[what])
    elif what == "runs":
        rows = run_rows(out_folder)
    else:
        raise UserError(unknown("list", what, ["tasks", "gates", "backends", "runs"]))
    if as_json:
        print(json.dumps({what: rows}))
        return
    from rich.table import Table

    if not rows:
        out.print(f"no {what} in {out_folder}" if what == "runs" else f"no {what}")
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    out.print(table)


def _print_results(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    titles = {str(row["name"]): str(row["task"]) for row in task_rows()}
    out.print(result_table([result], titles))
    row = paper.scheme(result["task"], result["gate"])
    if row:
        flops = quantity(row["flops"])
        out.print(f"paper, with its own model and data: {row['performance']:g}, {flops} FLOPs")
    out.print(result["run_id"])


def _run_folder(run: str, results: Path) -> Path:
    """The folder of a run given by its id or its path."""
    if (Path(run) / "config.json").is_file():
        return Path(run)
    known = {path.parent.name: path.parent for path in results.glob("*/runs/*/config.json")}
    if run not in known:
        raise UserError(f"{results}: " + unknown("run", run, sorted(known)))
    return known[run]


def _given(options: dict[str, tuple[str, Any]], settings: list[str] | None) -> dict[str, tuple[str, Any]]:
    """The settings that the user gave: option as typed -> key and value."""
    given = {option: (key, value) for option, (key, value) in options.items() if value is not None}
    for text in settings or []:
        key, value = _assignment(text)
        if key in (known for known, _ in given.values()):
            raise UserError(f"--set {text}: {key} is given twice")
        given[f"--set {key}"] = (key, value)
    return given


def _assignment(text: str) -> tuple[str, Any]:
    """`key=value` with a TOML value; what is not TOML is text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, e.g. training.learning_rate=1e-4")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _require_tensorboard() -> None:
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: not installed; pip install 'repro[tensorboard]'")


def _quiet_libraries() -> None:
    """Libraries report to their own progress bars and loggers; ours is enough."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


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
