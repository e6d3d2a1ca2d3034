"""Which loss the runs of a study go on to: that of the baseline of their seed at its budget."""

from collections.abc import Mapping, Sequence

from repro.results.run import read_result
from repro.results.target import is_reached, target_of
from repro.study.definition import load_study
from repro.study.plan import PlannedRun
from repro.training.checkpoints import remove_checkpoints
from repro.training.schedule import FARTHEST

Baselines = Mapping[str, Sequence[PlannedRun]]
"""Run id -> the runs that it is compared with, in one study or several."""


def baselines_of(plans: Mapping[str, Sequence[PlannedRun]]) -> Baselines:
    """Return the baselines of the runs of studies; one without any has none.

    Args:
        plans: study -> its runs.
    """
    found: dict[str, list[PlannedRun]] = {}
    for study, runs in plans.items():
        baseline_of = load_study(study).baseline_of
        by_place = {(run.config.task, run.config.seed, run.variant): run for run in runs}
        for run in runs:
            base = by_place.get((run.config.task, run.config.seed, baseline_of(run.variant) or ""))
            if base is not None:
                found.setdefault(run.config.run_id, []).append(base)
    return found


def loss_to_reach(run: PlannedRun, baselines: Baselines) -> float | None:
    """Return the loss on the dev split that a finished run has to go on to; None if it need not.

    With several baselines that is the lowest. A run that is as far as a trunk may go is done, too.
    """
    if not run.finished or run.config.training.schedule == "linear":
        return None
    others = [base for base in other_baselines(run, baselines) if base.finished]
    if not others:
        return None
    target = min(target_of(read_result(base.folder.result)) for base in others)
    result = read_result(run.folder.result)
    farthest = result.curve[-1].step >= FARTHEST * result.steps
    return None if farthest or is_reached(result.curve, target, result.steps) else target


def other_baselines(run: PlannedRun, baselines: Baselines) -> list[PlannedRun]:
    """Return the baselines of a run but itself, which several studies may have planned."""
    own = run.config.run_id
    return [base for base in baselines.get(own, ()) if base.config.run_id != own]


def forget_trunk(run: PlannedRun, baselines: Baselines) -> None:
    """Remove the checkpoint of a trunk that need not go on any more.

    That of a run without a baseline stays, as that of a run trained alone, and that of one whose baseline
    has failed.
    """
    others = baselines.get(run.config.run_id)
    if run.finished and others and all(base.finished for base in others):
        remove_checkpoints(run.folder)
