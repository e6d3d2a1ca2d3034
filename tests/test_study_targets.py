"""Which loss the runs of a study go on to, once their budgets are done."""

from pathlib import Path
from typing import Any

import pytest
from factories import make_result
from planned import planned

from repro.results.files import write_json
from repro.run.until import TimeToLoss
from repro.study.definition import load_study
from repro.study.plan import PlannedRun
from repro.study.targets import reach_targets


def finish_at(run: PlannedRun, loss: float) -> None:
    """Put the result of a run there whose loss at its 20 steps is this."""
    result = make_result("sst2", "adaptive", run.config.seed, curve=[(0, 0.0, 1.0), (20, 10.0, loss)])
    run.folder.path.mkdir(parents=True)
    write_json(run.folder.result, result.to_json())


def targets(
    runs: list[PlannedRun], study: str, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[str, int], float]:
    """Return variant and seed -> the loss that the run went on to."""
    found = {}
    by_id = {run.config.run_id: run for run in runs}

    def until(config: Any, paths: object, loss: float, **_: object) -> TimeToLoss:
        run = by_id[config.run_id]
        found[run.variant, config.seed] = loss
        return TimeToLoss(
            run_id=config.run_id, loss=loss, steps=1.0, train_seconds=1.0, trained_steps=1, last_loss=loss
        )

    monkeypatch.setattr("repro.study.targets.execute_until", until)
    quiet: Any = lambda *_: None  # noqa: E731
    baseline_of = load_study(study).baseline_of
    assert reach_targets(runs, baseline_of, report=quiet, ended=quiet, should_stop=lambda: False) == {}
    return found


def test_the_target_is_that_of_the_baseline_of_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = planned(tmp_path, seeds=2)
    for number, run in enumerate(runs):
        finish_at(run, 0.125 + number / 64)
    # dense, top-2, top-1 and adaptive of seed 0, then of seed 1: top-2 has the numbers 1 and 5.
    by_seed = [0.125 + 1 / 64, 0.125 + 5 / 64]
    assert targets(runs, "schemes", monkeypatch) == {
        (scheme, seed): by_seed[seed] for seed in (0, 1) for scheme in ("dense", "top-1", "adaptive")
    }


def test_a_variant_may_have_a_baseline_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the orders on the `padded` back-end; a run that is not finished does not go on."""
    runs = planned(tmp_path, study="curriculum")
    losses = {"cosine": 0.5, "cosine padded": 0.25}
    for run in runs:
        if run.variant != "count":
            finish_at(run, losses.get(run.variant, 0.75))
    assert targets(runs, "curriculum", monkeypatch) == {
        **dict.fromkeys([(order, 0) for order in ("random", "distance", "mean", "length")], 0.5),
        ("random padded", 0): 0.25,
    }
