"""`repro bench --task`: training steps of a task, part by part, or of several gates in turns."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from repro.bench.profile import PARTS, split_steps
from repro.cli.console import Cell, Row, err, out, plain_table, print_json
from repro.config import RunConfig
from repro.errors import UserError
from repro.results.files import RunPaths
from repro.results.records import StepRecord
from repro.run.contradictions import Override
from repro.run.execute import execute
from repro.run.resolve import resolve
from repro.study.board import Work
from repro.study.lanes import Lanes, work_on_lanes
from repro.study.seat import Job, Outcome
from repro.training.state import Progress

_WARM_UP = 3
"""Steps that are not counted, at the start of a run and of every turn."""
_EVALUATED_ROWS = 16
"""Of each split: enough for one example where rows are lines, some of them empty, packed into blocks."""


def run_step_bench(task: str, gate: str, *, scale: str, data: str | None, steps: int, as_json: bool) -> None:
    """Train some steps under the profiler and show where their time goes; nothing is kept.

    The profiler itself costs time, most where operations are small; shares are what to look at.

    Raises:
        UserError: the inputs are wrong.
    """
    config, paths = _short_run(task, gate, scale, data, _WARM_UP + steps)
    with tempfile.TemporaryDirectory() as scratch, profile(activities=[ProfilerActivity.CPU]) as profiler:
        execute(config, replace(paths, results=Path(scratch)), report=lambda record: None, should_stop=bool)
    measured = split_steps(profiler.events())[_WARM_UP:]
    seconds = {part: statistics.median(step[part] for step in measured) for part in PARTS}
    rows: list[Row] = [
        {"part": part, "ms": 1000 * value, "share": value / sum(seconds.values())}
        for part, value in seconds.items()
    ]
    rows.append({"part": "step", "ms": 1000 * sum(seconds.values()), "share": 1.0})
    if as_json:
        print_json({"run": config.run_id, "steps": steps, "parts": rows})
        return
    out.print(f"{config.task} {config.gate}, median of {steps} steps after {_WARM_UP}, under the profiler")
    out.print(plain_table(rows))


def run_gate_bench(
    task: str, gates: Sequence[str], *, scale: str, data: str | None, steps: int, repeats: int, as_json: bool
) -> None:
    """Interleave training steps of several gates, and compare their times; nothing is kept.

    Raises:
        UserError: the inputs are wrong, or a gate cannot be trained.
    """
    turn = _WARM_UP + steps
    with tempfile.TemporaryDirectory() as scratch:
        jobs: dict[str, Job] = {}
        for gate in gates:
            config, paths = _short_run(task, gate, scale, data, turn * repeats)
            job = Job(number=len(jobs), config=config, paths=replace(paths, results=Path(scratch)))
            jobs.setdefault(config.gate, job)
        rounds = _Rounds(list(jobs.values()), turn, repeats)
        lanes = Lanes(count=1, threads=torch.get_num_threads(), turns=turn)
        work_on_lanes(lanes, [job.config.run_id for job in jobs.values()], rounds, rounds, bool)
    if rounds.failed:
        raise UserError(*rounds.failed)
    measured = rounds.measured
    first = measured[next(iter(jobs))]
    rows: list[Row] = [{"gate": gate, **_step_row(measured[gate], first)} for gate in jobs]
    if as_json:
        print_json({"task": task, "steps": steps, "repeats": repeats, "gates": rows})
        return
    out.print(f"{task}, {repeats} rounds of {steps} steps after {_WARM_UP}; ratios to the first gate")
    out.print(plain_table(rows))


class _Rounds:
    """Supplies short runs of gates to a lane, and keeps their steps but for those that warm up."""

    def __init__(self, jobs: Sequence[Job], turn: int, repeats: int) -> None:
        self.measured: dict[str, list[StepRecord]] = {}
        self.failed: list[str] = []
        self._jobs = jobs
        self._turn = turn
        self._repeats = repeats

    def take(self) -> Sequence[Job]:
        """Return all jobs, once."""
        jobs, self._jobs = self._jobs, ()
        return jobs

    def is_empty(self) -> bool:
        """Return whether they were taken."""
        return not self._jobs

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Keep the reason of a failure."""
        if isinstance(outcome, str):
            self.failed.append(f"{job.config.gate}: {outcome}")

    def put_back(self, job: Job) -> None:
        """Refuse: nobody else knows the folder."""
        raise AssertionError(f"{job.paths.results} is in use")

    def assigned(self, lane: int, job: Job | None, work: Work) -> None:
        """Say nothing."""

    def stepped(self, job: Job, progress: Progress) -> None:
        """Keep a step that does not warm up; announce a turn with its first."""
        repeat, step = divmod(progress.record.step - 1, self._turn)
        if step == 0:
            err.print(f"[{repeat + 1}/{self._repeats}] {job.config.task} {job.config.gate}", markup=False)
        if step >= _WARM_UP:
            self.measured.setdefault(job.config.gate, []).append(progress.record)


def _step_row(records: Sequence[StepRecord], first: Sequence[StepRecord]) -> dict[str, Cell]:
    """Return median and distance of the quartiles of a gate's steps, and mean experts of its tokens."""
    seconds = [record.seconds for record in records]
    low, median, high = statistics.quantiles(seconds, n=4)
    counts = [record.mean_experts for record in records if record.mean_experts is not None]
    return {
        "ms": 1000 * median,
        "spread": 1000 * (high - low),
        "ratio": median / statistics.median(record.seconds for record in first),
        "experts": statistics.fmean(counts) if counts else None,
    }


def _short_run(task: str, gate: str, scale: str, data: str | None, steps: int) -> tuple[RunConfig, RunPaths]:
    """Resolve a run of exactly so many steps, with next to no evaluation."""
    settings: dict[str, object] = {
        "training.steps": steps,
        "training.schedule": "linear",  # neither a margin beyond the steps nor a branch
        "data.dev_samples": _EVALUATED_ROWS,
        "data.validation_samples": _EVALUATED_ROWS,
        "evaluation.points": 1,
    }
    return resolve(
        task=task,
        scale=scale,
        gate=gate,
        seed=0,
        data=data,
        model=None,
        overrides={key: Override(value, "--steps") for key, value in settings.items()},
        results=Path(),
    )
