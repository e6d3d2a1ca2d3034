"""Runs of a study on lanes: the same numbers as alone, who works when, what counts, failures, stopping."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, read_legs
from planned import SCHEMES, planned
from told import Told, do

from repro.errors import Interrupted
from repro.results.run import RunResult, read_result
from repro.run.execute import execute
from repro.study import lanes
from repro.study.board import Board, Work
from repro.study.plan import PlannedRun


def small(results: Path, **changes: object) -> list[PlannedRun]:
    """Dense, top-2, top-1 and adaptive: trunks of seven steps, cooldowns from the fourth to the sixth."""
    return planned(results, settings=SMALL | changes)


def losses(runs: list[PlannedRun]) -> list[list[list[float]]]:
    """Of each run those of the trunk and those of the cooldown."""
    return [[[row["loss"] for row in leg] for leg in read_legs(run.folder.path)] for run in runs]


def curve(run: PlannedRun) -> list[tuple[int, float]]:
    return [(point.step, point.eval_loss) for point in result_of(run).curve]


def result_of(run: PlannedRun) -> RunResult:
    return read_result(run.folder.result)


def alone(runs: list[PlannedRun]) -> None:
    for run in runs:
        execute(run.config, run.paths, report=lambda progress: None, should_stop=bool)


def test_the_same_numbers_as_alone_also_after_a_stop(tmp_path: Path) -> None:
    by_itself, together = small(tmp_path / "alone"), small(tmp_path / "together")
    alone(by_itself)
    told = Told(stop_at=16)
    with pytest.raises(Interrupted, match="stopped, 4 runs saved"):
        do(together, told)
    # Every other step is measured: each run has a turn, then all are measured.
    assert told.steps[:8] == [(scheme, step) for scheme in SCHEMES for step in (1, 2)]
    last = {scheme: max(step for variant, step in told.steps if variant == scheme) for scheme in SCHEMES}
    assert max(last.values()) - min(last.values()) <= 2
    assert all(run.folder.checkpoint.exists() and not run.finished for run in together)
    told = Told()
    assert do(together, told, lanes=2) == {}
    assert losses(together) == losses(by_itself)
    assert [[len(leg) for leg in legs] for legs in losses(by_itself)] == [[7, 2]] * 4
    for one, other in zip(by_itself, together, strict=True):
        assert result_of(one).metrics == result_of(other).metrics
        assert curve(one) == curve(other)
        assert result_of(one).dev_loss == result_of(other).dev_loss
        assert (other.variant, result_of(other)) in told.outcomes
        assert (result_of(one).interleaved_with, result_of(one).neighbours) == ([], {})
        assert (result_of(one).fair_steps, result_of(one).lanes) == (6, 1)
        others = [run.config.run_id for run in together if run is not other]
        assert result_of(other).interleaved_with == sorted(others)
        assert result_of(other).lanes == 2


def test_training_and_the_rest_are_done_apart(tmp_path: Path) -> None:
    """With one lane a run is loaded or measured only when nobody is left that would train."""
    told = Told()
    do(small(tmp_path), told, turns=1)
    kinds = [work for _, run, work in told.work if run is not None]
    blocks = [kinds[0], *(now for before, now in pairwise(kinds) if now != before)]
    assert blocks[:4] == [Work.OTHER, Work.TRAINING] * 2
    # Seven steps of a trunk with measurements after 2, 4, 6 and 7, two of the cooldown; no one is ahead.
    assert len(blocks) <= 2 * 8
    for block in range(4):
        assert [variant for variant, step in told.steps if step == block + 1][:4] == list(SCHEMES)


def test_what_ran_beside_is_told_as_it_happened(tmp_path: Path) -> None:
    settings = SMALL | {"evaluation.points": 1, "training.steps": 24}
    runs = planned(tmp_path, seeds=2, settings=settings)
    do(runs, lanes=2)
    ids = {run.config.run_id for run in runs}
    for run in runs:
        result = result_of(run)
        assert set(result.neighbours) <= ids - {run.config.run_id}
        # With two lanes there is one neighbour in every step that counts.
        assert sum(result.neighbours.values()) == result.fair_steps
    assert sum(result_of(run).fair_steps or 0 for run in runs) > 0


def test_a_step_is_fair_while_all_lanes_train() -> None:
    board = Board(lanes._CONTEXT, 2, ["a", "b", "c"])
    board.assign(0, Work.TRAINING, 0)
    mark = board.mark()
    assert not board.is_fair_since(mark)  # nobody on the other lane
    board.assign(1, Work.TRAINING, 1)
    assert not board.is_fair_since(mark)  # it came in between
    mark = board.mark()
    board.assign(1, Work.TRAINING, 2)  # another run, the same work
    assert board.is_fair_since(mark)
    assert (board.beside(0), board.beside(1)) == (["c"], ["a"])
    board.assign(0, Work.OTHER, 0)
    board.assign(0, Work.TRAINING, 0)
    assert not board.is_fair_since(mark)  # it was away in between
    before = board.steps()
    board.add_step(2)
    assert board.trained_since(before) == ["c"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (-9, "its process was killed, as the system does when memory runs out; try fewer --lanes"),
        (1, "its process ended (exit status 1)"),
        (-11, "its process ended (exit status -11)"),
    ],
)
def test_why_a_process_is_gone(status: int, reason: str) -> None:
    assert lanes._cause(status) == reason


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    good = small(tmp_path)
    bad = small(tmp_path, **{"training.learning_rate": 1e30})
    told = Told()
    failed = do([bad[0], good[1]], told, turns=1)
    (reason,) = failed.values()
    assert list(failed) == [bad[0].config.run_id]
    assert reason.startswith("FloatingPointError: the loss is")
    assert ("dense", reason) in told.outcomes
    assert good[1].finished


def test_lanes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    cases: list[tuple[Any, Any, tuple[int, int]]] = [
        (None, 1, (8, 1)),
        (None, None, (1, 8)),
        (None, 3, (2, 3)),
        (None, 16, (1, 16)),
        (5, 2, (5, 2)),
        (4, None, (4, 8)),
    ]
    for count, threads, expected in cases:
        made = lanes.default_lanes(count, threads, 10)
        assert (made.count, made.threads) == expected
