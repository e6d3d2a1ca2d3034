"""Studies: plan their runs, do those that are missing, one at a time, and note what was compared."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from repro import plugins
from repro._prepare import check_family
from repro._turns import Outcome, take_turns
from repro._variants import after_of, cannot_stand, chosen_variants, variant_settings, variants_of
from repro.config import ModelConfig, RunConfig
from repro.errors import Interrupted, UserError, named_line
from repro.experiments import Override, read_scale, resolve
from repro.records import Places, RunFolder, read_json, write_json
from repro.run import execute


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a study."""

    variant: str
    """The row of the table that it belongs to."""
    config: RunConfig
    places: Places
    after: "PlannedRun | None" = None
    """The run from whose trained model it starts."""

    @property
    def folder(self) -> RunFolder:
        """Where it leaves its files."""
        return RunFolder(self.places.results / self.config.scale / "runs" / self.config.run_id)

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return self.folder.result.exists()


def task_names(scale: str, wanted: Sequence[str]) -> list[str]:
    """The tasks of a study: those wanted, or all that the scale describes, in its order.

    Raises:
        UserError: one of them is unknown.
    """
    if not wanted:
        return [name for name in read_scale(scale) if name in plugins.names("tasks")]
    return list(dict.fromkeys(plugins.resolve("tasks", name, where="--tasks: ")[0] for name in wanted))


def plan(
    study: str,
    *,
    tasks: Sequence[str],
    seeds: int,
    scale: str,
    data: str | None,
    overrides: Mapping[str, Override],
    results: Path,
    model: str | None = None,
    values: Sequence[float] = (),
    only: Sequence[str] = (),
) -> list[PlannedRun]:
    """The runs of a study, in the order in which they are done: what is compared stands together.

    Settings that a variant fixes, or that mean nothing to it, do not apply to it. Variants that cannot
    stand in a task's model are left out. A run that starts from another's model is named by that run,
    so it can be planned before there is one.

    Beside the variants that are wanted stand those of the study whose runs, with the same settings and
    seeds, are finished: asking for a few rows takes none from the table.

    Args:
        model: a pretrained model from which every run starts; its family must be that of all tasks.
        values: what the study varies, in place of its own values.
        only: these variants; all by default.

    Raises:
        UserError: with the problems of all runs that are wanted, each once.
    """
    runs: list[PlannedRun] = []
    problems: dict[str, None] = {}
    wanted = chosen_variants(study, values, only)
    variants = variants_of(study, ()) | wanted
    settings = variant_settings(study, variants, overrides) | variant_settings(study, wanted, overrides)
    for task in tasks:
        for seed in range(seeds):
            for variant, (gate, _) in variants.items():
                if cannot_stand(gate, scale, task):
                    continue
                try:
                    config, places = resolve(
                        task=task,
                        scale=scale,
                        gate=gate,
                        seed=seed,
                        data=data,
                        model=model,
                        overrides=settings[variant],
                        results=results,
                    )
                    runs.append(PlannedRun(variant=variant, config=config, places=places))
                except UserError as error:
                    if variant in wanted:
                        problems |= dict.fromkeys(error.problems)
    if model is not None:
        problems |= _misfits(runs)
    if problems:
        raise UserError(*problems)
    if not any(run.variant in wanted for run in runs):
        raise UserError(f"--variants: {', '.join(wanted)}: no place in a model of {', '.join(tasks)}")
    return _wanted_or_finished(_chained(runs, after_of(study)), wanted)


def _misfits(runs: Iterable[PlannedRun]) -> dict[str, None]:
    """Why the given model is not one for these tasks; one look a task, for the hub takes its time."""
    problems: dict[str, None] = {}
    for run in {run.config.task: run for run in runs}.values():
        try:
            check_family(run.config, run.places)
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
    return problems


def _wanted_or_finished(runs: Sequence[PlannedRun], wanted: Container[str]) -> list[PlannedRun]:
    """The runs of rows that are wanted, and of those that lack none of their runs."""
    lacking = {(run.config.task, run.variant) for run in runs if not run.finished}
    return [run for run in runs if run.variant in wanted or (run.config.task, run.variant) not in lacking]


def _chained(runs: Sequence[PlannedRun], after: Mapping[str, str]) -> list[PlannedRun]:
    """The runs, each of a variant that starts from another's model with that of its task and seed."""
    known = {(run.config.task, run.config.seed, run.variant): run for run in runs}
    return [
        _going_on(run, known[run.config.task, run.config.seed, after[run.variant]])
        if run.variant in after
        else run
        for run in runs
    ]


def _going_on(run: PlannedRun, first: PlannedRun) -> PlannedRun:
    """The run, from the model of another: its tokenizer, sizes and experts come with that model.

    The id of the first run stands for everything that decides its numbers, so it names the model.
    """
    model = ModelConfig(backbone=first.config.model.backbone, checkpoint=f"run:{first.config.run_id}")
    experts = replace(run.config.experts, init="random")
    return replace(
        run,
        config=replace(run.config, model=model, experts=experts),
        places=replace(run.places, model=first.folder.model),
        after=first,
    )


def together(plans: Iterable[Sequence[PlannedRun]]) -> list[PlannedRun]:
    """The runs of several studies, each once: of a task and seed together, so that they can take turns.

    Those that start from another's model come last.
    """
    runs: dict[str, PlannedRun] = {}
    for planned in plans:
        for run in planned:
            runs.setdefault(run.config.run_id, run)
    tasks = list(dict.fromkeys(run.config.task for run in runs.values()))
    return sorted(
        runs.values(), key=lambda run: (tasks.index(run.config.task), run.config.seed, run.after is not None)
    )


def carry_out(
    runs: Sequence[PlannedRun],
    *,
    turns: int = 0,
    at_once: int = 16,
    started: Callable[[int, PlannedRun], None],
    report: Callable[[PlannedRun, dict[str, Any]], None],
    ended: Callable[[PlannedRun, Outcome], None],
    should_stop: Callable[[], bool],
) -> dict[str, str]:
    """Do the runs; a run that fails stops only those that start from its model.

    Args:
        turns: the runs of a task and seed take turns of so many steps; 0 does one run after the other.
        at_once: most runs that take turns with each other; every one of them needs its memory.
        started: told the number of the run (from 0) and the run.
        report: called with the run and the record of every step.
        ended: told the run and its result, or why it failed.

    Returns:
        Run id -> reason, of the runs that failed.

    Raises:
        Interrupted: `should_stop` said so; a checkpoint was saved.
    """
    failed: dict[str, str] = {}

    def end(run: PlannedRun, outcome: Outcome) -> None:
        if isinstance(outcome, str):
            failed[run.config.run_id] = outcome
        ended(run, outcome)

    number = 0
    for group in _groups(runs, at_once if turns else 1):
        ready = []
        for run in group:
            started(number, run)
            number += 1
            reason = _cannot_start(run)
            if reason is None:
                ready.append(run)
            else:
                end(run, reason)
        if len(ready) == 1:
            end(ready[0], _alone(ready[0], partial(report, ready[0]), should_stop))
        elif ready:
            take_turns(ready, turns, report=report, ended=end, should_stop=should_stop)
    return failed


def _groups(runs: Sequence[PlannedRun], size: int) -> Iterator[Sequence[PlannedRun]]:
    """At most `size` runs that take turns: of one task and seed, and from the same model, in their order."""

    def compared(run: PlannedRun) -> tuple[str, int, str]:
        return run.config.task, run.config.seed, run.after.config.run_id if run.after else ""

    for _, group in groupby(runs, compared):
        together = list(group)
        for start in range(0, len(together), size):
            yield together[start : start + size]


def _alone(
    run: PlannedRun, report: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]
) -> Outcome:
    """One run in this process."""
    try:
        return execute(run.config, run.places, report=report, should_stop=should_stop)
    except Interrupted:
        raise
    except Exception as error:  # of this run alone: bad data, a loss that is not finite, no memory
        return named_line(error)


def _cannot_start(run: PlannedRun) -> str | None:
    """Why there is no model to start from, where one is needed."""
    first = run.after
    if first is None:
        return None
    which = f"the run that it starts from, {first.config.run_id},"
    if not first.finished:
        return f"{which} is not finished"
    if not first.folder.model.is_dir():
        return f"{which} has no model any more; delete its folder to train it again"
    return None


def record_study(study: str, runs: Sequence[PlannedRun], failed: Mapping[str, str], scale: Path) -> None:
    """Write `studies/<study>.json`: which runs stand for which rows of the table.

    The tasks of these runs replace what was recorded of them before; others stay.

    Raises:
        UserError: the folder cannot be written.
    """
    path = scale / "studies" / f"{study}.json"
    known = read_json(path) if path.exists() else {"tasks": {}, "failed": {}}
    tasks: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        tasks.setdefault(run.config.task, {}).setdefault(run.variant, []).append(run.config.run_id)
    known["tasks"] |= tasks
    listed = {run_id for rows in known["tasks"].values() for run_ids in rows.values() for run_id in run_ids}
    done = {run.config.run_id for run in runs if run.finished}
    known["failed"] = {
        run_id: reason
        for run_id, reason in (known["failed"] | dict(failed)).items()
        if run_id in listed and run_id not in done
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"study": study, **known})
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
