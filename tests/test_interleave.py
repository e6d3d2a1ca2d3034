"""Interleaved runs of a study: the same numbers as alone, failures, and stopping all of them."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from command_line import SMALL, read_legs
from planned import planned

from repro.errors import Interrupted
from repro.results.run import RunResult, read_result
from repro.study import execute as studies
from repro.study import interleave
from repro.study.interleave import Outcome
from repro.study.plan import PlannedRun


@dataclass
class Told:
    """What is told of the runs, in its order: variant with number of the step, or with outcome."""

    steps: list[tuple[str, int]] = field(default_factory=list)
    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)


def small(results: Path, **changes: object) -> list[PlannedRun]:
    """Dense, top-2, top-1 and adaptive: trunks of seven steps, cooldowns from the fourth to the sixth."""
    return planned(results, settings=SMALL | changes)


def do(runs: list[PlannedRun], turns: int, told: Told, stop_at: int = 10**6) -> dict[str, str]:
    asked = count(1)
    return studies.execute(
        runs,
        turns=turns,
        started=lambda number, run: None,
        report=lambda run, progress: told.steps.append((run.variant, progress.record.step)),
        ended=lambda run, outcome: told.outcomes.append((run.variant, outcome)),
        should_stop=lambda: next(asked) > stop_at,
    )


def losses(runs: list[PlannedRun]) -> list[list[list[float]]]:
    """Of each run those of the trunk and those of the cooldown."""
    return [[[row["loss"] for row in leg] for leg in read_legs(run.folder.path)] for run in runs]


def curve(run: PlannedRun) -> list[tuple[int, float]]:
    return [(point.step, point.eval_loss) for point in result_of(run).curve]


def result_of(run: PlannedRun) -> RunResult:
    return read_result(run.folder.result)


def test_the_same_numbers_as_alone_also_after_a_stop(tmp_path: Path) -> None:
    alone, interleaved = small(tmp_path / "alone"), small(tmp_path / "interleaved")
    assert do(alone, 0, Told()) == {}
    told = Told()
    with pytest.raises(Interrupted, match="stopped after step 4 of 9"):
        do(interleaved, 2, told, stop_at=16)
    order = ["dense"] * 2 + ["top-2"] * 2 + ["top-1"] * 2 + ["adaptive"] * 2
    assert [variant for variant, _ in told.steps] == [*order, *order]
    assert [step for _, step in told.steps] == [1, 2] * 4 + [3, 4] * 4
    assert all(run.folder.checkpoint.exists() and not run.finished for run in interleaved)
    told = Told()
    assert do(interleaved, 2, told) == {}
    assert [step for variant, step in told.steps if variant == "dense"] == [5, 6, 7, 5, 6]
    assert losses(interleaved) == losses(alone)
    assert [[len(leg) for leg in legs] for legs in losses(alone)] == [[7, 2]] * 4
    for one, other in zip(alone, interleaved, strict=True):
        assert result_of(one).metrics == result_of(other).metrics
        assert curve(one) == curve(other)
        assert result_of(one).dev_loss == result_of(other).dev_loss
        assert (other.variant, result_of(other)) in told.outcomes
        assert result_of(one).interleaved_with == []
        others = [run.config.run_id for run in interleaved if run is not other]
        assert result_of(other).interleaved_with == others


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (-9, "its process was killed, as the system does when memory runs out; try a smaller --at-once"),
        (1, "its process ended (exit status 1)"),
        (-11, "its process ended (exit status -11)"),
    ],
)
def test_why_a_process_is_gone(status: int, reason: str) -> None:
    assert interleave._cause(status) == reason


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    good = small(tmp_path)
    bad = small(tmp_path, **{"training.learning_rate": 1e30})
    told = Told()
    failed = do([bad[0], good[1]], 1, told)
    (reason,) = failed.values()
    assert list(failed) == [bad[0].config.run_id]
    assert reason.startswith("FloatingPointError: the loss is")
    assert ("dense", reason) in told.outcomes
    assert good[1].finished


def test_runs_of_a_task_and_seed_are_together(tmp_path: Path) -> None:
    runs = small(tmp_path)
    names = [run.variant for run in runs]
    groups = [[run.variant for run in group] for group in studies._groups(runs * 2, 5)]
    assert groups == [[*names, names[0]], names[1:]]
    assert [len(group) for group in studies._groups(runs, 1)] == [1, 1, 1, 1]
    first, *others = planned(tmp_path, study="adamoe")
    assert list(studies._groups([first, *others], 5)) == [[first], others]
