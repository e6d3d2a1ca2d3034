"""How far a study is, and how long it will still take."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import make_result, make_step
from planned import planned

from repro.cli import study_progress
from repro.cli.progress import StopRequest
from repro.cli.study_progress import Remaining, StudyDisplay
from repro.run.until import TimeToLoss
from repro.study.board import Work
from repro.study.plan import PlannedRun
from repro.training.state import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [100.0]
    monkeypatch.setattr(study_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def remaining(runs: list[PlannedRun]) -> Remaining:
    """Dense costs 10, the others 20; all but top-2 may have to go on for three tenths of that."""
    return Remaining(
        runs, lambda run: 10.0 if run.variant == "dense" else 20.0, lambda run: run.variant != "top-2"
    )


def test_time_left_by_hand(tmp_path: Path, clock: list[float]) -> None:
    """In all 13 + 20 + 26 + 26 = 85."""
    dense, top_2, top_1, adaptive = planned(tmp_path)
    left = remaining([dense, top_2, top_1, adaptive])
    assert (left.share_done, left.seconds) == (0.0, None)
    left.advance(dense, 0.5)
    assert left.share_done == pytest.approx(5 / 85)
    assert left.seconds is None  # less than a tenth
    clock[0] += 30
    left.advance(dense, 1.0)
    assert left.share_done == pytest.approx(10 / 85)
    assert left.seconds == pytest.approx(30 * 75 / 10)
    left.finish(dense)  # it need not go on
    left.advance(top_2, 1.0)
    assert left.share_done == pytest.approx((13 + 20) / 85)  # it has no target: nothing is left of it
    left.finish(top_2)
    left.advance(top_1, 1.0)
    assert left.share_done == pytest.approx((13 + 20 + 20) / 85)
    left.advance(adaptive, 0.5)
    assert left.share_done == pytest.approx((13 + 20 + 20 + 10) / 85)
    left.advance(adaptive, 0.25)  # of the way on to a target: no step back
    assert left.share_done == pytest.approx((13 + 20 + 20 + 10) / 85)


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = planned(tmp_path)[:2]
    dense, top_2 = runs
    stop = StopRequest.__new__(StopRequest)
    with StudyDisplay(2, 2, remaining(runs), stop) as display:
        display.started(dense, None)
        display.started(top_2, None)
        assert stop.training
        display.assigned(0, dense, Work.TRAINING)
        display.assigned(1, top_2, Work.OTHER)
        record = make_step(loss=2.0, tokens=100, seconds=0.1, share_multi_expert=0.25)
        for done in (1, 2, 3):
            clock[0] += 6
            display.stepped(dense, Progress(record=record, done=done, total_steps=4, train_seconds=1.0))
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
        "all runs 0/2, 15%, about 1 min left",
    ]
    assert lines[4].startswith("sst2 dense seed 0: accuracy ")
    assert lines[5:] == ["sst2 top-2 seed 0: failed: no memory"]
