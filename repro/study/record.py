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
    done = {run.config.run_id for run in runs if run.finished}
    kept = done & set(before.commands)
    asked = {run.config.run_id: command for run in runs if run.config.run_id not in kept}
    record = Study(study=study, tasks=planned, failed=dict(failed), commands=asked).over(before)
    reasons = {run_id: reason for run_id, reason in record.failed.items() if run_id not in done}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record.model_copy(update={"failed": reasons}).to_json())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
