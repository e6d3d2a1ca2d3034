"""How long a study will still take, from what its runs have needed: by hand, and over a whole study."""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_result
from planned import planned

from repro.results.files import write_json
from repro.study.plan import PlannedRun
from repro.study.so_far import so_far
from repro.study.targets import baselines_of
from repro.study.time_left import RunSoFar, workload


def run(kind: str = "top-1", cost: float = 10.0, *, may_go_on: bool = True, **known: Any) -> RunSoFar:
    return replace(RunSoFar(kind=kind, cost=cost, may_go_on=may_go_on), **known)


def began(share: float, seconds: float, **known: Any) -> RunSoFar:
    """A run that did a share of its budget in so many seconds."""
    return run(share=share, share_here=share, seconds_here=seconds, **known)


OVER: dict[str, Any] = {"share": 1.0, "is_over": True}


class TestByHand:
    def test_before_the_first_step(self) -> None:
        work = workload([run(), run(may_go_on=False)])
        assert (work.done, work.share_done) == (0.0, 0.0)
        assert work.left == pytest.approx([11.0, 10.0])  # a tenth of a budget is the way on to a target
        assert work.seconds_left(5.0, 2) is None

    def test_nothing_is_left(self) -> None:
        work = workload([began(1.0, 20.0, is_over=True)])
        assert (work.left, work.share_done) == ([], 1.0)
        assert work.seconds_left(30.0, 2) == 0.0
        assert workload([]).share_done == 1.0

    def test_the_estimate_is_corrected(self) -> None:
        """Half a budget took 10 s in place of 5, so another kind takes twice its estimate, too."""
        left = workload([began(0.5, 10.0, may_go_on=False), run("dense", 7.0, may_go_on=False)]).left
        assert left == pytest.approx([10.0, 14.0])

    def test_runs_of_a_kind_take_what_the_first_one_took(self) -> None:
        """What others took does not matter much to them: a tenth of a budget's worth."""
        runs = [
            began(1.0, 10.0, is_over=True, may_go_on=False),
            run("dense", share_here=1.0, seconds_here=40.0, may_go_on=False, **OVER),
            run("dense", may_go_on=False),
        ]
        assert workload(runs).left == pytest.approx([(40.0 + 0.1 * 2.5 * 10.0) / 1.1])

    def test_what_was_done_before_says_nothing_of_the_pace(self) -> None:
        """A run goes on from a checkpoint at half of its budget."""
        work = workload([run(share=0.75, share_here=0.25, seconds_here=5.0, may_go_on=False)])
        assert work.left == pytest.approx([5.0])
        assert work.seconds_left(8.0, 1) == pytest.approx(8.0)

    def test_ways_of_runs_that_are_over(self) -> None:
        """Those of the same kind say more than all together."""
        others = [run("adaptive", way=0.0, **OVER) for _ in range(16)]
        few, many = run(), run("adaptive")
        work = workload([*others, run(way=0.5, **OVER), few, many])
        mean = (16 * 0.1 + 0.5) / 33
        assert work.left == pytest.approx([10 * (1 + (0.5 + mean) / 2), 10 * (1 + mean / 17)])

    def test_a_run_that_goes_on(self) -> None:
        """It is expected to go as far as those of its kind that went farther than it has gone."""
        over = [run(way=way, **OVER) for way in (0.0, 0.2, 0.4)]
        for way, left in ((0.0, 0.3), (0.1, 0.2), (0.3, 0.1), (0.5, 0.0)):
            going = run(share=1.0, goes_on=True, way=way)
            assert workload([*over, going]).left == pytest.approx([10 * left])

    def test_failed_runs_say_nothing_of_ways(self) -> None:
        failed = run(share=0.5, is_over=True)
        assert workload([failed, run()]).left == pytest.approx([11.0])

    def test_one_run_cannot_use_all_lanes(self) -> None:
        """Two lanes did 20 s of training in 10 s; the last 5 s of it are done by one of them."""
        runs = [began(1.0, 15.0, is_over=True, may_go_on=False), began(0.5, 5.0, may_go_on=False)]
        work = workload(runs)
        assert work.seconds_left(10.0, 0) == pytest.approx(sum(work.left) / 2)
        assert work.seconds_left(10.0, 2) == pytest.approx(sum(work.left))


# --- what is known at the beginning ---------------------------------------------------------------


def finish(run: PlannedRun, seconds: float, last_step: int, loss: float) -> None:
    """Of 20 steps, of which the trunk does 22 and the cooldown 4."""
    curve = [(0, 0.0, 1.0), (20, 1.0, loss), (last_step, 1.1, loss)]
    result = make_result(run.config.task, run.config.gate, run.config.seed, run_id=run.config.run_id)
    changed = result.to_json() | {"steps": 20, "train_seconds": seconds, "curve": curve}
    run.folder.path.mkdir(parents=True)
    write_json(run.folder.result, changed)


def test_finished_runs_are_known(tmp_path: Path) -> None:
    """Top-2 is done, dense has reached its loss, top-1 has not yet; their costs are better than estimates."""
    runs = planned(tmp_path, seeds=2)
    dense, top_2, top_1, _ = runs[:4]
    finish(dense, 6.0, 35, 0.5)
    finish(top_2, 20.0, 22, 0.5)
    finish(top_1, 14.0, 22, 0.75)
    estimates = {run.config.run_id: 100.0 for run in runs if not run.finished}
    known = so_far(runs, baselines_of({"schemes": runs}), estimates)
    costs = {name: [known[run.config.run_id].cost for run in runs if run.variant == name] for name in NAMES}
    assert costs == {
        "dense": pytest.approx([300 * 6 / 40] * 2),
        "top-2": pytest.approx([300 * 20 / 40] * 2),
        "top-1": pytest.approx([300 * 14 / 40] * 2),
        "adaptive": [100.0] * 2,
    }
    first = [known[run.config.run_id] for run in runs[:4]]
    assert [one.may_go_on for one in first] == [True, False, True, True]
    assert [one.is_over for one in first] == [True, True, False, False]
    assert [one.share for one in first] == [1.0, 1.0, 1.0, 0.0]
    assert first[0].way == pytest.approx(13 / 26)
    assert (first[0].steps, first[0].seconds_here) == (26, 0.0)


def test_without_the_baseline_nobody_knows_who_goes_on(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    finish(runs[0], 6.0, 22, 0.5)
    known = so_far(runs, baselines_of({"schemes": runs}), {run.config.run_id: 1.0 for run in runs[1:]})
    assert not known[runs[0].config.run_id].is_over


# --- a whole study --------------------------------------------------------------------------------

NAMES = ("dense", "top-2", "top-1", "adaptive")
COSTS = {
    "sst2": ((7.8, 16.2, 11.5, 12.9), (16.3, 35.6, 30.3, 32.8)),
    "wmt19": ((21.3, 36.9, 28.1, 30.8), (44.2, 81.0, 69.1, 73.3)),
    "squad": ((12.2, 22.6, 15.5, 17.6), (24.2, 48.2, 36.9, 40.7)),
    "cnn_dailymail": ((11.0, 21.2, 16.1, 17.7), (23.6, 49.8, 42.2, 44.8)),
    "wikitext": ((13.5, 21.9, 16.1, 17.8), (25.2, 42.5, 33.8, 36.1)),
    "soda": ((14.8, 23.7, 17.3, 19.3), (27.9, 46.9, 37.4, 40.2)),
}
"""Estimates for a budget, and seconds that it took, of each scheme, as measured at `mini` with two lanes."""
WAYS = {
    "sst2": ((0.18, 0, 0.03, 0.03), (0.69, 0.46, 0.69, 0), (0.06, 0, 0.09, 0)),
    "wmt19": ((0.32, 0.35, 0.52, 0.4), (0, 0.01, 0.02, 0.05), (0, 0.05, 0.02, 0.03)),
    "squad": ((0, 0, 0, 0), (0.13, 0.06, 0, 0.62), (0, 0.18, 0.05, 0.23)),
    "cnn_dailymail": ((0, 0, 0, 0), (0.07, 0, 0.25, 0), (0.03, 0.03, 0.22, 0.12)),
    "wikitext": ((0.01, 0, 0, 0), (0.27, 0.31, 0.69, 0.32), (0.16, 0.22, 0.13, 0.08)),
    "soda": ((0, 0, 0, 0), (0.13, 0.17, 0.17, 0.16), (0.12, 0.11, 0.09, 0.05)),
}
"""Budgets that dense, top-1 and adaptive went on for, with four seeds."""


@dataclass(eq=False)
class Simulated:
    """A run, what is known of it, and what nobody knows yet."""

    so_far: RunSoFar
    seconds: float
    way: float
    to_do: float = 1.0
    turns: int = 0
    waits: bool = False

    def work(self, budgets: float) -> float:
        """Do a part of it; return the time that it took."""
        seconds = budgets * self.seconds
        self.to_do -= budgets
        if self.so_far.goes_on:
            self.so_far.way += budgets
            self.so_far.way_seconds_here += seconds
        else:
            self.so_far.share += budgets
            self.so_far.share_here += budgets
            self.so_far.seconds_here += seconds
        return seconds


def comparison(task: str, seed: int) -> list[Simulated]:
    """The four runs of a task and seed; top-2 has no target."""
    ways = dict(zip(("dense", "top-1", "adaptive"), (way[seed] for way in WAYS[task]), strict=True))
    return [
        Simulated(
            RunSoFar(kind=(task, name), cost=cost, may_go_on=name != "top-2"), seconds, ways.get(name, 0.0)
        )
        for name, cost, seconds in zip(NAMES, *COSTS[task], strict=True)
    ]


def study(comparisons: Sequence[list[Simulated]], lanes: int) -> Iterator[float]:
    """Do all runs as `lanes.py` and `execute.py` do, and give the time after every turn."""
    chance, now = random.Random(0), 0.0
    working: list[tuple[float, int, Simulated]] = []
    while True:
        under_way = [runs for runs in comparisons if not all(run.so_far.is_over for run in runs)][:lanes]
        busy = [run for _, _, run in working]
        for runs in under_way:
            if all(run.to_do <= 0 and run not in busy for run in runs):  # budgets are done
                for run in runs:
                    run.so_far.share = 1.0
                    run.so_far.goes_on = run.way > 0 and not run.so_far.is_over
                    run.so_far.is_over, run.to_do = not run.so_far.goes_on, run.way
        free = [run for runs in under_way for run in runs if run.to_do > 0 and run not in busy]
        free.sort(key=lambda run: (run.turns, chance.random()))
        for run in free[: lanes - len(working)]:
            run.turns += 1
            load = 4.0 if run.turns == 1 else 0.0
            seconds = 1.06 * run.work(min(1 / 16, run.to_do)) + load  # evaluations come on top
            heapq.heappush(working, (now + seconds, id(run), run))
        if not working:
            return
        now, _, run = heapq.heappop(working)
        if run.to_do <= 1e-9:
            run.to_do = 0.0
            run.so_far.is_over = run.so_far.goes_on or not run.so_far.may_go_on
        yield now


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_right_within_a_fifth_after_the_first_tenth(lanes: int) -> None:
    """Twenty-four comparisons of four runs each; the end of the last one is left out."""
    comparisons = [comparison(task, seed) for task in COSTS for seed in range(4)]
    told, now, last = [], 0.0, 0.0
    for now in study(comparisons, lanes):
        if now - last > 15:
            last = now
            work = workload([run.so_far for runs in comparisons for run in runs])
            seconds = work.seconds_left(now, lanes)
            if work.share_done >= 0.1 and seconds is not None:
                told.append((now, seconds))
    errors = {round(then / now, 3): left / (now - then) - 1 for then, left in told if then < 0.95 * now}
    assert len(errors) > 60
    assert max(map(abs, errors.values())) < 0.2, errors
