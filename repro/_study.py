"""`repro ablate`: the runs of studies with one progress display, then their tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from repro import plugins
from repro._prepare import load_examples
from repro._terminal import StopRequest, TrainingDisplay, err, number, out, plain_table, print_json
from repro._turns import Outcome
from repro.ablation import PlannedRun, carry_out, record_study, together
from repro.estimate import estimate, matmul_speed
from repro.records import Published
from repro.report import build_report


def run_studies(
    plans: Mapping[str, Sequence[PlannedRun]], scale: Path, *, turns: int, at_once: int, as_json: bool
) -> dict[str, str]:
    """Do what is missing, rebuild the tables of the scale, show those of the studies.

    Args:
        plans: study -> its runs; a run of several of them is done once.
        turns, at_once: as in `carry_out`.

    Returns:
        Run id -> reason, of the runs that failed.

    Raises:
        Interrupted: by Ctrl-C; the same command goes on.
    """
    stop = StopRequest()
    runs = together(plans.values())
    missing = [run for run in runs if not run.finished]
    err.print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished before")
    for study, planned in plans.items():
        record_study(study, planned, {}, scale)
    with TrainingDisplay(len(missing)) as display:

        def started(number: int, run: PlannedRun) -> None:
            display.begin(_title(run), number)

        def report(run: PlannedRun, record: dict[str, Any]) -> None:
            stop.training = True
            display.show(_title(run), record)

        def ended(run: PlannedRun, outcome: Outcome) -> None:
            stop.training = False
            display.end(_title(run))
            err.print(f"{_title(run)}: {_outcome(outcome)}", markup=False)

        failed = carry_out(
            missing,
            turns=turns,
            at_once=at_once,
            started=started,
            report=report,
            ended=ended,
            should_stop=stop,
        )
    for study, planned in plans.items():
        record_study(study, planned, failed, scale)
    published = Published.read(scale)
    if published.results:
        _show(plans, published, build_report(scale), as_json)
    for run_id, reason in failed.items():
        err.print(f"repro: {run_id} failed: {reason}", markup=False)
    return failed


def _title(run: PlannedRun) -> str:
    return f"{run.config.task} {run.variant} seed {run.config.seed}"


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"failed: {outcome}"
    metric = outcome["metric"]
    return f"{metric['name']} {number(metric['value'])}, {outcome['train_seconds']:.1f} s of training"


def _show(studies: Iterable[str], published: Published, written: list[Path], as_json: bool) -> None:
    tables = {study: plugins.load("tables", plugins.load("studies", study).TABLE) for study in studies}
    if as_json:
        rows = {study: table.rows(published) for study, table in tables.items()}
        print_json({"tables": rows, "files": [str(path) for path in written]})
        return
    for study, table in tables.items():
        if len(tables) > 1:
            out.print(f"{study}:", markup=False)
        out.print(plain_table(table.shown(published)))
        for note in table.notes(published):
            out.print(f"* {note}", markup=False)
    out.print(" ".join(str(path) for path in written if path.suffix == ".csv"))


def dry_run_rows(runs: Sequence[PlannedRun]) -> list[dict[str, Any]]:
    """What every run that is left will take."""
    speed: list[float] = []

    def measured_speed() -> float:
        if not speed:
            speed.append(matmul_speed(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
        return speed[0]

    examples: dict[Any, Any] = {}
    rows, total = [], 0.0
    for run in runs:
        first = run.after or run  # has the same tokenizer and sizes; its model may not be there yet
        config = replace(run.config, model=first.config.model)
        key = (config.task, config.data, config.model, config.task_options)
        if key not in examples:
            examples = {key: load_examples(config, first.places)}  # one at a time in memory
        found = estimate(config, first.places, examples[key], measured_speed)
        seconds = found.seconds
        if run.finished:
            seconds = 0.0
        total += seconds
        rows.append(
            {
                "run": run.config.run_id,
                "state": "done" if run.finished else "to do",
                "steps": found.steps,
                "tokens": found.tokens,
                "params": found.parameters,
                "FLOPs": found.flops,
                "about s": round(seconds),
                "about GB": round(found.memory_bytes / 1e9, 2),
            }
        )
    err.print(f"{len(rows)} runs, about {total / 60:.0f} minutes of training")
    return rows
