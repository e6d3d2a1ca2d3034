"""`repro ablate`: the runs of studies with one progress display, then their tables."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from repro.cli.console import err, out, plain_table, print_json, say, without_repeats
from repro.cli.progress import StopRequest
from repro.cli.study_progress import StudyDisplay, TimeLeft
from repro.config import RunConfig
from repro.machine import available_memory
from repro.report.build import build_report
from repro.report.learned import learned
from repro.report.tables.base import load_shown
from repro.results.published import Published
from repro.results.run import read_result
from repro.run.setup import Examples, load_examples
from repro.study.definition import load_study
from repro.study.estimate import Estimate, estimate, matmul_speed
from repro.study.execute import Memory, execute
from repro.study.lanes import Lanes
from repro.study.plan import PlannedRun, together
from repro.study.record import record_study
from repro.study.so_far import so_far
from repro.study.targets import baselines_of

Plans = Mapping[str, Sequence[PlannedRun]]
"""Study -> its runs; a run of several of them is done once."""
Way = Callable[[Plans, Sequence[PlannedRun], StopRequest], dict[str, str]]
"""Does the runs of plans, of which the second ones are not finished; gives run id -> reason if some fail."""


def run_studies(plans: Plans, scale: Path, way: Way, *, command: str, as_json: bool) -> dict[str, str]:
    """Do what is missing, rebuild the tables of the scale, show those of the studies.

    Nothing is trained before all files that the tables are made of were read.

    Args:
        plans: study -> its runs; a run of several of them is done once.
        way: does the runs.
        command: what was typed, as others can repeat it.

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
        record_study(study, planned, {}, scale, command)
    failed = way(plans, missing, stop)
    for study, planned in plans.items():
        record_study(study, planned, failed, scale, command)
    published = Published.read(scale)
    if published.results:
        _show(plans, published, build_report(scale), as_json)
    for run_id, reason in failed.items():
        say(f"{run_id} failed: {reason}")
    return failed


def work_here(
    plans: Plans, missing: Sequence[PlannedRun], stop: StopRequest, *, lanes: Lanes, at_once: int | None
) -> dict[str, str]:
    """Do runs on the lanes of this machine.

    Args:
        at_once: most open runs; None: as many as there is memory for.
    """
    costs = Costs()
    estimates = {run.config.run_id: costs.of(run) for run in missing}
    seconds = {run_id: cost.seconds for run_id, cost in estimates.items()}
    runs_so_far = so_far(together(plans.values()), baselines_of(plans), seconds)
    memory = Memory(
        of_run=lambda run: (estimates.get(run.config.run_id) or costs.of(run)).memory_bytes,
        available=available_memory(),
        at_once=at_once,
    )
    time_left = TimeLeft(runs_so_far, lanes.count)
    with StudyDisplay(lanes.count, len(missing), time_left, stop) as display:
        failed = execute(plans, lanes, memory, display, stop)
    stop.training = False
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


def _show(studies: Iterable[str], published: Published, written: list[Path], as_json: bool) -> None:
    """Print of each study what was learnt, its table and the notes, then where the report is."""
    tables = {study: load_shown(load_study(study).table) for study in studies}
    if as_json:
        rows = {study: table.rows(published) for study, table in tables.items()}
        print_json({"tables": rows, "files": [str(path) for path in written]})
        return
    for study, table in tables.items():
        if len(tables) > 1:
            out.print(f"{study}:", markup=False)
        for line in learned(published, study):
            out.print(line)
        out.print(plain_table(without_repeats(table.shown(published))))
        for note in table.notes(published):
            out.print(f"* {note}", markup=False)
    (report,) = [path for path in written if path.name == "report.html"]
    names = " ".join(path.name for path in written if path.suffix == ".csv")
    out.print(textwrap.fill(f"Beside the report: {names}", 80), markup=False)
    out.print(f"All of it, with pictures: {report}", markup=False)


class Costs:
    """Estimates of runs, those of all seeds alike. The examples of one task are in memory at a time."""

    def __init__(self, processes: int | None = None) -> None:
        """Take the processes of each run's launch; None: as many as share its experts, or one."""
        self._processes = processes
        self._known: dict[RunConfig, Estimate] = {}
        self._speed: float | None = None
        self._key: object = None
        self._examples: Examples | None = None

    def of(self, run: PlannedRun) -> Estimate:
        """Estimate a run."""
        first = run.init_from or run  # has the same tokenizer and sizes; its model may not be there yet
        config = replace(run.config, model=first.config.model, seed=0)
        if config not in self._known:
            key = (config.task, config.data, config.model, config.task_options)
            if self._examples is None or key != self._key:
                self._key, self._examples = key, load_examples(config, first.paths)
            self._known[config] = estimate(
                config,
                first.paths,
                self._examples,
                self._measured_speed,
                processes=self._processes or config.experts.parallel or 1,
            )
        return self._known[config]

    def _measured_speed(self) -> float:
        if self._speed is None:
            self._speed = matmul_speed(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return self._speed


def dry_run_rows(
    runs: Sequence[PlannedRun], processes: int | None = None
) -> list[dict[str, str | int | float]]:
    """Estimate what every run that is left will take.

    Args:
        processes: of each run's launch, as in `Costs`.
    """
    costs = Costs(processes)
    found = [(run, costs.of(run)) for run in runs]
    most = max((cost.processes for _, cost in found), default=1)
    rows: list[dict[str, str | int | float]] = []
    total = 0.0
    for run, cost in found:
        seconds = 0.0 if run.finished else cost.seconds
        total += seconds
        state = "done" if run.finished else "to do"
        cells = _cells_of_several(cost, seconds) if most > 1 else _cells(cost, seconds)
        rows.append({"run": run.config.run_id, "state": state, **cells})
    each = f", {most} processes each" if most > 1 else ""
    err.print(f"{len(rows)} runs{each}, about {total / 60:.0f} minutes of training")
    return rows


def _cells(cost: Estimate, seconds: float) -> dict[str, int | float]:
    return {
        "steps": cost.steps,
        "tokens": cost.tokens,
        "params": cost.parameters,
        "FLOPs": cost.flops,
        "about s": round(seconds),
        "about GB": round(cost.memory_bytes / 1e9, 2),
    }


def _cells_of_several(cost: Estimate, seconds: float) -> dict[str, int | float]:
    """Return the cells of runs of several processes: what each of them does."""
    return {
        "steps an epoch": cost.steps_per_epoch,
        "steps": cost.steps,
        "tokens a process": round(cost.tokens / cost.processes),
        "about s": round(seconds),
        "GB a process": round(cost.memory_bytes / 1e9, 2),
    }
