"""The runs of a study one after the other: what is told, failures, and what stops all of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from factories import make_result, make_step
from planned import SCHEMES, finish, planned

from repro.config import RunConfig
from repro.errors import Interrupted, UserError
from repro.results.files import RunPaths
from repro.results.run import RunResult
from repro.study.execute import execute
from repro.study.interleave import Outcome
from repro.study.plan import PlannedRun
from repro.training.state import Progress

Log = list[tuple[str, str]]
Execute = Callable[..., dict[str, str]]


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Do the four schemes; `errors` of some happen instead of training. Fills a log."""

    def call(log: Log, errors: Mapping[str, BaseException] | None = None) -> dict[str, str]:
        runs = planned(tmp_path)

        def execute_run(
            config: RunConfig,
            paths: RunPaths,
            *,
            report: Callable[[Progress], None],
            should_stop: Callable[[], bool],
        ) -> RunResult:
            assert paths.results == tmp_path
            assert should_stop() is False
            report(Progress(record=make_step(), done=1, total_steps=2, train_seconds=0.5))
            if config.gate in (errors or {}):
                raise (errors or {})[config.gate]
            return make_result(gate=config.gate, run_id=config.run_id)

        def started(number: int, run: PlannedRun) -> None:
            assert runs[number] is run
            log.append(("start", run.variant))

        def ended(run: PlannedRun, outcome: Outcome) -> None:
            done = isinstance(outcome, RunResult)
            assert not done or outcome == make_result(gate=run.config.gate, run_id=run.config.run_id)
            log.append(("done" if done else str(outcome), run.variant))

        monkeypatch.setattr("repro.study.execute.execute_run", execute_run)
        return execute(
            runs,
            started=started,
            report=lambda run, progress: log.append(("step", str(progress.record.step))),
            ended=ended,
            should_stop=lambda: False,
        )

    return call


def test_one_after_the_other(executed: Execute) -> None:
    log: Log = []
    assert executed(log) == {}
    assert log == [
        event for scheme in SCHEMES for event in (("start", scheme), ("step", "1"), ("done", scheme))
    ]


def test_goes_on_after_a_failure(executed: Execute, tmp_path: Path) -> None:
    log: Log = []
    errors = {
        "top-2": FloatingPointError("the loss is nan at step 2;\n  lower it"),
        "top-1": UserError("one thing", "another thing"),
    }
    ids = {run.variant: run.config.run_id for run in planned(tmp_path)}
    reasons = {
        "top-2": "FloatingPointError: the loss is nan at step 2; lower it",
        "top-1": "UserError: one thing another thing",
    }
    assert executed(log, errors) == {ids[scheme]: reason for scheme, reason in reasons.items()}
    assert [event for event in log if event[0] not in ("start", "step")] == [
        (reasons.get(scheme, "done"), scheme) for scheme in SCHEMES
    ]


@pytest.mark.parametrize("stop", [Interrupted("stopped after step 3 of 8"), KeyboardInterrupt()])
def test_stops_when_asked_to(executed: Execute, stop: BaseException) -> None:
    log: Log = []
    with pytest.raises(type(stop)):
        executed(log, {"top-2": stop})
    assert [event for event in log if event[0] != "step"] == [
        ("start", "dense"),
        ("done", "dense"),
        ("start", "top-2"),
    ]


def test_nothing_to_do() -> None:
    def never(*arguments: object) -> NoReturn:
        raise AssertionError

    assert execute([], started=never, report=never, ended=never, should_stop=never) == {}


@pytest.mark.parametrize(
    ("finished", "kept", "reason"),
    [
        (False, True, "the run that it starts from, {first}, is not finished"),
        (
            True,
            False,
            "the run that it starts from, {first}, has no model any more;"
            " delete its folder to train it again",
        ),
    ],
)
def test_nothing_to_start_from(tmp_path: Path, finished: bool, kept: bool, reason: str) -> None:
    first, *others = planned(tmp_path, study="adamoe")
    if finished:
        finish(first)
    if kept:
        first.folder.model.mkdir(parents=True)
    told: list[int | Outcome] = []
    failed = execute(
        others,
        started=lambda number, run: told.append(number),
        report=lambda run, progress: None,
        ended=lambda run, outcome: told.append(outcome),
        should_stop=lambda: False,
    )
    expected = reason.format(first=first.config.run_id)
    assert failed == {run.config.run_id: expected for run in others}
    assert told == [0, expected, 1, expected]
