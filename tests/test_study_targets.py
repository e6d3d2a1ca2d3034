"""Which loss the runs of a study go on to, once their budgets are done."""

from pathlib import Path

from factories import make_result
from planned import planned

from repro.results.files import write_json
from repro.study.plan import PlannedRun
from repro.study.targets import baselines_of, forget_trunk, loss_to_reach


def finish_at(run: PlannedRun, loss: float, end: int = 20) -> None:
    """Put the result of a run there whose loss at its 20 steps is this."""
    curve = [(0, 0.0, 1.0), (20, 10.0, loss)] + ([(end, 20.0, loss)] if end > 20 else [])
    result = make_result("sst2", "adaptive", run.config.seed, curve=curve)
    run.folder.path.mkdir(parents=True)
    write_json(run.folder.result, result.to_json())


def targets(runs: list[PlannedRun], *studies: str) -> dict[tuple[str, int], float]:
    """Return variant and seed -> the loss that the run has to go on to."""
    baselines = baselines_of(dict.fromkeys(studies, runs))
    losses = {(run.variant, run.config.seed): loss_to_reach(run, baselines) for run in runs}
    return {place: loss for place, loss in losses.items() if loss is not None}


def test_the_target_is_that_of_the_baseline_of_the_seed(tmp_path: Path) -> None:
    runs = planned(tmp_path, seeds=2)
    for number, run in enumerate(runs):
        finish_at(run, 0.125 + number / 64)
    # dense, top-2, top-1 and adaptive of seed 0, then of seed 1: top-2 has the numbers 1 and 5.
    by_seed = [0.125 + 1 / 64, 0.125 + 5 / 64]
    assert targets(runs, "schemes") == {
        (scheme, seed): by_seed[seed] for seed in (0, 1) for scheme in ("dense", "top-1", "adaptive")
    }
    assert targets(runs, "gates") == {}


def test_a_variant_may_have_a_baseline_of_its_own(tmp_path: Path) -> None:
    """As the orders on the `padded` back-end; a run that is not finished does not go on."""
    runs = planned(tmp_path, study="curriculum")
    losses = {"cosine": 0.5, "cosine padded": 0.25}
    for run in runs:
        if run.variant != "count":
            finish_at(run, losses.get(run.variant, 0.75))
    assert targets(runs, "curriculum") == {
        **dict.fromkeys([(order, 0) for order in ("random", "distance", "mean", "length")], 0.5),
        ("random padded", 0): 0.25,
    }


def test_who_need_not_go_on(tmp_path: Path) -> None:
    """At the end of the way that a trunk may go, and behind the target by a margin."""
    dense, top_2, top_1, adaptive = planned(tmp_path)
    finish_at(top_2, 0.5)
    finish_at(dense, 0.75, end=40)
    finish_at(top_1, 0.5, end=24)
    finish_at(adaptive, 0.5, end=21)
    assert targets([dense, top_2, top_1, adaptive], "schemes") == {("adaptive", 0): 0.5}


def test_of_several_baselines_the_lowest_loss(tmp_path: Path) -> None:
    dense, top_2, top_1, adaptive = planned(tmp_path)
    for run, loss in ((dense, 0.75), (top_2, 0.5), (top_1, 0.25), (adaptive, 0.75)):
        finish_at(run, loss)
    several = {adaptive.config.run_id: [top_2, top_1]}
    assert loss_to_reach(adaptive, several) == 0.25


def test_a_baseline_of_two_studies_has_nowhere_to_go(tmp_path: Path) -> None:
    plans = {study: planned(tmp_path, study=study) for study in ("schemes", "threshold")}
    for run in plans["schemes"]:
        finish_at(run, 0.5)
    baselines = baselines_of(plans)
    losses = {run.variant: loss_to_reach(run, baselines) for runs in plans.values() for run in runs}
    assert losses["top-2"] is None
    assert losses["dense"] == losses["adaptive"] == losses["0.1"] == 0.5


def test_checkpoints_of_trunks_that_may_go_on_stay(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    for run in runs:
        finish_at(run, 0.5)
        run.folder.checkpoint.mkdir()
    for study, stays in (("gates", True), ("schemes", False)):
        for run in runs:
            forget_trunk(run, baselines_of({study: runs}))
        assert [run.folder.checkpoint.exists() for run in runs] == [stays] * 4
