"""Studies planned at scale `mini`, and runs of them that look finished."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import Settings

from repro.run.contradictions import Override
from repro.run.scales import experiments_folder
from repro.study.plan import PlannedRun, plan

SCHEMES = ("dense", "top-2", "top-1", "adaptive")
"""The variants of the study `schemes`, in its order."""


def overrides_of(settings: Settings) -> dict[str, Override]:
    """Make settings what `--set` makes of them."""
    return {key: Override(value, f"--set {key}") for key, value in settings.items()}


def planned(
    results: Path,
    tasks: Sequence[str] = ("sst2",),
    *,
    study: str = "schemes",
    seeds: int = 1,
    only: Sequence[str] = (),
    model: Path | None = None,
    values: Sequence[float] = (),
    settings: Settings | None = None,
) -> list[PlannedRun]:
    """Plan the runs of a study."""
    return plan(
        study,
        tasks=tasks,
        seeds=seeds,
        scale="mini",
        data=None,
        overrides=overrides_of(settings or {}),
        results=results,
        model=None if model is None else str(model),
        only=only,
        values=values,
    )


def finish(run: PlannedRun) -> None:
    """Put a result where that of the run belongs; nothing reads it."""
    run.folder.path.mkdir(parents=True)
    run.folder.result.write_text("{}")


def copy_studies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a copy of `experiments/` in the place of the true one, and return its folder of studies."""
    shutil.copytree(experiments_folder(), folder / "experiments")
    monkeypatch.setattr("repro.study.definition.experiments_folder", lambda: folder / "experiments")
    return folder / "experiments" / "studies"
