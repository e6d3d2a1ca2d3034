"""`repro ablate`: the runs of studies with one progress display, then their tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from repro.cli.console import err, number, out, plain_table, print_json, say
from repro.cli.progress import StopRequest, TrainingDisplay
from repro.report.build import build_report
from repro.report.tables.base import load_shown
from repro.results.published import Published
from repro.results.run import read_result
from repro.run.setup import Examples, load_examples
from repro.run.until import TimeToLoss
from repro.study.definition import load_study
from repro.study.estimate import estimate, matmul_speed
from repro.study.execute import execute
from repro.study.interleave import Outcome
from repro.study.plan import PlannedRun, together
from repro.study.record import record_study
from repro.study.targets import reach_targets
from repro.training.state import Progress


def run_studies(
    plans: Mapping[str, Sequence[PlannedRun]], scale: Path, *, turns: int, at_once: int, as_json: bool
) -> dict[str, str]:
    """Do what is missing, rebuild the tables of the scale, show those of the studies.

    Nothing is trained before all files that the tables are made of were read.

    Args:
        plans: study -> its runs; a run of several of them is done once.
        turns, at_once: as in `study.execute`.

    Returns:
        Run id -> reason, of the runs that failed.

    Raises:
        UserError: a file of the scale's results is damaged.
        Interrupted: by Ctrl-C; the same command goes on.
    """
    Published.read(scale)
    stop = StopRequest()
    runs = together(plans.values())
    missing = [run for run in runs if not run.finished]
    err.print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished before")
    _warn_of_other_code(run for run in runs if run.finished)
    for study, planned in plans.items():
        record_study(study, planned, {}, scale)
    with TrainingDisplay(len(missing)) as display:

        def started(number: int, run: PlannedRun) -> None:
            display.begin(_title(run), number)

        def report(run: PlannedRun, progress: Progress) -> None:
            stop.training = True
            display.show(_title(run), progress)

        def ended(run: PlannedRun, outcome: Outcome) -> None:
            stop.training = False
            display.end(_title(run))
            err.print(f"{_title(run)}: {_outcome(outcome)}", markup=False)

        failed = execute(
            missing,
            turns=turns,
            at_once=at_once,
            started=started,
            report=report,
            ended=ended,
            should_stop=stop,
        )
        failed |= _reach_targets(plans, display, stop)
    for study, planned in plans.items():
        record_study(study, planned, failed, scale)
    published = Published.read(scale)
    if published.results:
        _show(plans, published, build_report(scale), as_json)
    for run_id, reason in failed.items():
        say(f"{run_id} failed: {reason}")
    return failed


def _reach_targets(
    plans: Mapping[str, Sequence[PlannedRun]], display: TrainingDisplay, stop: StopRequest
) -> dict[str, str]:
    """Let the runs of studies with a baseline go on until they reach its loss; return those that failed."""

    def report(run: PlannedRun, progress: Progress) -> None:
        stop.training = True
        display.show(_title(run), progress)

    def ended(run: PlannedRun, outcome: TimeToLoss | str) -> None:
        stop.training = False
        display.remove(_title(run))
        if isinstance(outcome, str):
            err.print(f"{_title(run)}: {_outcome(outcome)}", markup=False)

    failed: dict[str, str] = {}
    for study, planned in plans.items():
        baseline_of = load_study(study).baseline_of
        failed |= reach_targets(planned, baseline_of, report=report, ended=ended, should_stop=stop)
    return failed


def _warn_of_other_code(finished: Iterable[PlannedRun]) -> None:
    """Say in one line how many finished runs are from other code or libraries, and what differs."""
    changes = [changed for run in finished if (changed := read_result(run.folder.result).environment.changed)]
    if changes:
        kinds = "; ".join(dict.fromkeys(change for changed in changes for change in changed))
        err.print(
            f"{len(changes)} of them with other code or libraries ({kinds});"
            " delete their folders to do them again",
            markup=False,
        )


def _title(run: PlannedRun) -> str:
    return f"{run.config.task} {run.variant} seed {run.config.seed}"


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"failed: {outcome}"
    metric = outcome.metric
    return f"{metric.name} {number(metric.value)}, {outcome.train_seconds:.1f} s of training"


def _show(studies: Iterable[str], published: Published, written: list[Path], as_json: bool) -> None:
    tables = {study: load_shown(load_study(study).table) for study in studies}
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
    out.print(" ".join(str(path) for path in written if path.suffix == ".csv"), markup=False)


def dry_run_rows(runs: Sequence[PlannedRun]) -> list[dict[str, str | int | float]]:
    """Estimate what every run that is left will take."""
    speed: list[float] = []

    def measured_speed() -> float:
        if not speed:
            speed.append(matmul_speed(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
        return speed[0]

    examples: dict[object, Examples] = {}
    rows, total = [], 0.0
    for run in runs:
        first = run.init_from or run  # has the same tokenizer and sizes; its model may not be there yet
        config = replace(run.config, model=first.config.model)
        key = (config.task, config.data, config.model, config.task_options)
        if key not in examples:
            examples = {key: load_examples(config, first.paths)}  # one at a time in memory
        cost = estimate(config, first.paths, examples[key], measured_speed)
        seconds = cost.seconds
        if run.finished:
            seconds = 0.0
        total += seconds
        rows.append(
            {
                "run": run.config.run_id,
                "state": "done" if run.finished else "to do",
                "steps": cost.steps,
                "tokens": cost.tokens,
                "params": cost.parameters,
                "FLOPs": cost.flops,
                "about s": round(seconds),
                "about GB": round(cost.memory_bytes / 1e9, 2),
            }
        )
    err.print(f"{len(rows)} runs, about {total / 60:.0f} minutes of training")
    return rows
