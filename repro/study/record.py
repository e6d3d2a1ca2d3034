"""Record which runs a study compares, in `studies/<study>.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.errors import UserError
from repro.results.files import write_json
from repro.results.study import Study
from repro.study.plan import PlannedRun


def record_study(
    study: str, runs: Sequence[PlannedRun], failed: Mapping[str, str], scale: Path, command: str
) -> None:
    """Write which runs stand for which rows of the table.

    The tasks of these runs replace what was recorded of them before; others stay.
    A finished run keeps the command that was recorded for it.

    Args:
        failed: run id -> reason.
        scale: the folder of the scale's results.
        command: what the user typed, as others can repeat it.

    Raises:
        UserError: the folder cannot be written.
    """
    path = scale / "studies" / f"{study}.json"
    before = Study.read(path) if path.exists() else Study(study=study, tasks={}, failed={})
    planned: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        planned.setdefault(run.config.task, {}).setdefault(run.variant, []).append(run.config.run_id)
    tasks = before.tasks | planned
    listed = {run_id for rows in tasks.values() for run_ids in rows.values() for run_id in run_ids}
    done = {run.config.run_id for run in runs if run.finished}
    kept = {run_id for run_id in done if run_id in before.commands}
    asked = {run.config.run_id: command for run in runs if run.config.run_id not in kept}
    commands = {run_id: text for run_id, text in (before.commands | asked).items() if run_id in listed}
    reasons = {
        run_id: reason
        for run_id, reason in (before.failed | dict(failed)).items()
        if run_id in listed and run_id not in done
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = Study(study=study, tasks=tasks, failed=reasons, commands=commands)
        write_json(path, record.to_json())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
