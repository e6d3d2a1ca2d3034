"""Runs of a study that take turns: the same numbers as alone, failures, and stopping all of them."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from repro import _turns, ablation
from repro.errors import Interrupted
from repro.experiments import Override
from repro.records import read_json, read_jsonl

Told = list[tuple[str, Any]]


def plan(repro: Any, results: Path, **changes: Any) -> list[ablation.PlannedRun]:
    """Dense, top-2, top-1 and adaptive, six steps each."""
    settings = repro.small | changes
    return ablation.plan(
        "schemes",
        tasks=["sst2"],
        seeds=1,
        scale="mini",
        data=None,
        overrides={key: Override(value, f"--set {key}") for key, value in settings.items()},
        results=results,
    )


def carry_out(
    runs: list[ablation.PlannedRun], turns: int, told: Told, stop_at: int = 10**6
) -> dict[str, str]:
    asked = count(1)
    return ablation.carry_out(
        runs,
        turns=turns,
        started=lambda number, run: None,
        report=lambda run, record: told.append((run.variant, record["step"])),
        ended=lambda run, outcome: told.append((run.variant, outcome)),
        should_stop=lambda: next(asked) > stop_at,
    )


def losses(runs: list[ablation.PlannedRun]) -> list[list[float]]:
    return [[row["loss"] for row in read_jsonl(run.folder.steps)] for run in runs]


def test_the_same_numbers_as_alone_also_after_a_stop(repro: Any, tmp_path: Path) -> None:
    alone, turns = plan(repro, tmp_path / "alone"), plan(repro, tmp_path / "turns")
    assert carry_out(alone, 0, []) == {}
    told: Told = []
    with pytest.raises(Interrupted, match="stopped after step 4 of 6"):
        carry_out(turns, 2, told, stop_at=16)
    order = ["dense"] * 2 + ["top-2"] * 2 + ["top-1"] * 2 + ["adaptive"] * 2
    assert [variant for variant, _ in told] == [*order, *order]
    assert [step for _, step in told] == [1, 2] * 4 + [3, 4] * 4
    assert all(run.folder.checkpoint.exists() and not run.finished for run in turns)
    told.clear()
    assert carry_out(turns, 2, told) == {}
    assert losses(turns) == losses(alone)
    for one, other in zip(alone, turns, strict=True):
        assert read_json(one.folder.result)["metrics"] == read_json(other.folder.result)["metrics"]
        assert (other.variant, read_json(other.folder.result)) in told
        assert read_json(one.folder.result)["beside"] == []
        others = [run.config.run_id for run in turns if run is not other]
        assert read_json(other.folder.result)["beside"] == others


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (-9, "its process was killed, as the system does when memory runs out; try a smaller --at-once"),
        (1, "its process ended (exit status 1)"),
        (-11, "its process ended (exit status -11)"),
    ],
)
def test_why_a_process_is_gone(status: int, reason: str) -> None:
    assert _turns._cause(status) == reason


def test_a_run_that_fails_does_not_stop_the_others(repro: Any, tmp_path: Path) -> None:
    good = plan(repro, tmp_path)
    bad = plan(repro, tmp_path, **{"training.learning_rate": 1e30})
    told: Told = []
    failed = carry_out([bad[0], good[1]], 1, told)
    (reason,) = failed.values()
    assert list(failed) == [bad[0].config.run_id]
    assert reason.startswith("FloatingPointError: the loss is")
    assert ("dense", reason) in told
    assert good[1].finished


def test_runs_of_a_task_and_seed_are_together(repro: Any, tmp_path: Path) -> None:
    runs = plan(repro, tmp_path)
    names = [run.variant for run in runs]
    groups = [[run.variant for run in group] for group in ablation._groups(runs * 2, 5)]
    assert groups == [[*names, names[0]], names[1:]]
    assert [len(group) for group in ablation._groups(runs, 1)] == [1, 1, 1, 1]
    first, *others = ablation.plan(
        "adamoe",
        tasks=["sst2"],
        seeds=1,
        scale="mini",
        data=None,
        overrides={},
        results=tmp_path,
    )
    assert list(ablation._groups([first, *others], 5)) == [[first], others]
