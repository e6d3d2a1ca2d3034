"""Studies that are done in this process, one run after the other, so that tests can let runs fail."""

from collections.abc import Callable
from typing import Any

import pytest

from repro.errors import Interrupted, named_line
from repro.results.run import RunResult
from repro.run.until import execute_until
from repro.study.lanes import Lanes, Supply
from repro.study.lanes import Watcher as LaneWatcher
from repro.study.seat import Job, Outcome

Do = Callable[..., RunResult]
"""`execute`, or what a test puts in its place."""


def do_in_process(monkeypatch: pytest.MonkeyPatch, do: Do) -> None:
    """Let `do` do the budgets of all runs."""

    def outcome(job: Job, watcher: LaneWatcher, should_stop: Callable[[], bool]) -> Outcome:
        options: dict[str, Any] = {
            "report": lambda progress: watcher.stepped(job, progress),
            "should_stop": should_stop,
        }
        try:
            if job.until is not None:
                return execute_until(job.config, job.paths, job.until, **options)
            return do(job.config, job.paths, **options)
        except Interrupted:
            raise
        except Exception as error:  # of this run alone
            return named_line(error)

    def one_after_the_other(
        lanes: Lanes,
        run_ids: list[str],
        supply: Supply,
        watcher: LaneWatcher,
        should_stop: Callable[[], bool],
    ) -> None:
        while jobs := supply.take():
            for job in jobs:
                supply.ended(job, outcome(job, watcher, should_stop))

    monkeypatch.setattr("repro.study.execute.work_on_lanes", one_after_the_other)
