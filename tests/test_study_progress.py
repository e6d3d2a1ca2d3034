"""How far a study is, and how long it will still take."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import make_result, make_step
from planned import planned

from repro.cli import study_progress
from repro.cli.progress import StopRequest
from repro.cli.study_progress import StudyDisplay, TimeLeft
from repro.run.until import TimeToLoss
from repro.study.board import Work
from repro.study.plan import PlannedRun
from repro.study.time_left import RunSoFar
from repro.training.state import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [100.0]
    monkeypatch.setattr(study_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def time_left(runs: list[PlannedRun], lanes: int = 0) -> TimeLeft:
    """Dense costs 10, the others 20; all but top-2 may have to go on for a tenth of that."""
    known = {
        run.config.run_id: RunSoFar(
            kind=run.variant, cost=10.0 if run.variant == "dense" else 20.0, may_go_on=run.variant != "top-2"
        )
        for run in runs
    }
    return TimeLeft(known, lanes)


def step(done: int, total_steps: int = 4, seconds: float = 2.5) -> Progress:
    """A step; with four of them a budget of 10 seconds."""
    record = make_step(loss=2.0, tokens=100, seconds=seconds, share_multi_expert=0.25)
    return Progress(record=record, done=done, total_steps=total_steps, train_seconds=1.0)


def test_time_left_by_hand(tmp_path: Path, clock: list[float]) -> None:
    """In all 11 + 20 + 22 + 22 = 75; times are as estimated."""
    dense, top_2, top_1, adaptive = planned(tmp_path)
    left = time_left([dense, top_2, top_1, adaptive])
    assert (left.share_done, left.seconds) == (0.0, None)
    left.stepped(dense, step(1))
    left.stepped(dense, step(2))
    assert left.share_done == pytest.approx(5 / 75)
    assert left.seconds is None  # less than a tenth
    clock[0] += 30
    left.stepped(dense, step(3))
    left.stepped(dense, step(4))
    left.ended(dense, make_result("sst2", "dense"))
    assert left.share_done == pytest.approx(10 / 75)
    assert left.seconds == pytest.approx(30 * 65 / 10)
    for done in range(1, 5):
        left.stepped(top_2, step(done, seconds=5))
    left.ended(top_2, make_result("sst2", "top-2"))
    assert left.share_done == pytest.approx(30 / 75)  # it has no target: nothing is left of it
    left.ended(adaptive, "no memory")
    assert left.share_done == pytest.approx(30 / (75 - 22))
    left.settled(dense)  # it need not go on; fewer will than was thought
    way = 1.6 / 17
    assert left.share_done == pytest.approx(30 / (30 + 20 * (1 + way)))


def test_time_left_on_the_way_to_a_target(tmp_path: Path, clock: list[float]) -> None:
    """The steps there are counted from 0 to twice the budget's, which does not matter."""
    dense, *others = planned(tmp_path)[:3]
    left = time_left([dense, *others], lanes=3)
    for done in range(1, 5):
        left.stepped(dense, step(done))
    left.ended(dense, make_result("sst2", "dense"))
    for other in others:
        left.ended(other, "no memory")
    clock[0] += 20
    assert left.seconds == pytest.approx(3 * 20 * 0.1)  # the others leave two of three lanes idle
    left.goes_on(dense)
    left.stepped(dense, step(5, 8))
    assert left.seconds == pytest.approx(0.0)  # farther than most go
    missed = TimeToLoss(run_id="", loss=1, steps=None, train_seconds=None, trained_steps=1, last_loss=1)
    left.ended(dense, missed)
    assert (left.share_done, left.seconds) == (1.0, 0.0)


def test_what_others_do(tmp_path: Path, clock: list[float]) -> None:
    """Nothing is told of its steps; the result says how long it took."""
    dense, top_2, *_ = planned(tmp_path)
    left = time_left([dense, top_2])
    left.ended(top_2, make_result("sst2", "top-2", train_seconds=40.0))
    assert left.share_done == pytest.approx(40 / (40 + 22))
    left.goes_on(dense)
    left.stepped(dense, step(2, 8))
    assert left.share_done == pytest.approx(42.5 / 62.5)


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = planned(tmp_path)[:2]
    dense, top_2 = runs
    stop = StopRequest.__new__(StopRequest)
    with StudyDisplay(2, 2, time_left(runs), stop) as display:
        display.started(dense, None)
        display.started(top_2, None)
        assert stop.training
        display.assigned(0, dense, Work.TRAINING)
        display.assigned(1, top_2, Work.OTHER)
        for done in (1, 2, 3):
            clock[0] += 6
            display.stepped(dense, step(done, seconds=0.1))
        display.ended(dense, make_result("sst2", "dense"))
        display.ended(top_2, "no memory")
        missed = TimeToLoss(run_id="", loss=1, steps=None, train_seconds=None, trained_steps=1, last_loss=1)
        display.ended(dense, missed)
        display.assigned(0, None, Work.NOTHING)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "[1/2] sst2 dense seed 0",
        "[2/2] sst2 top-2 seed 0",
        "sst2 dense seed 0 step 2/4 loss 2.000 two 25% 1.0k tok/s",
        "all runs 0/2, 16%, about 1 min left",
    ]
    assert lines[4].startswith("sst2 dense seed 0: accuracy ")
    assert lines[5:] == ["sst2 top-2 seed 0: failed: no memory"]
