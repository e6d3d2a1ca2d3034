"""Table of step times of runs alone and on lanes; as a command: gather it from four folders of results.

    python docs/lanes.py ALONE ONE TWO FOUR    # what --out was in the four commands of performance.md
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from math import exp, log
from pathlib import Path
from statistics import fmean

from repro.report.statistics import interval
from repro.results.published import Published

FILE = Path(__file__).parent.parent / "results" / "published" / "mini" / "lanes.csv"
WAYS = ("alone", "1 lane", "2 lanes", "4 lanes")
HEADS = ("Lanes", "Task", "Scheme", "Seed", "Seconds per step", "Fair steps", "Steps", "Processor", "Commit")
BASELINE = "top-2"


def gather(folders: Sequence[str]) -> None:
    """Write `lanes.csv` from the results of the same study, done in four ways."""
    rows = [
        (
            way,
            run.task,
            run.gate,
            run.seed,
            f"{run.seconds_per_step:.6g}",
            run.fair_steps,
            run.steps,
            run.environment.machine,
            run.environment.code,
        )
        for way, folder in zip(WAYS, folders, strict=True)
        for run in Published.read(Path(folder) / "mini").results.values()
    ]
    with FILE.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([HEADS, *rows])


def fairness() -> tuple[Sequence[str], Iterator[Sequence[str]]]:
    """Return heads and rows: ratios of step times to top-2's of runs alone, and the change of each on lanes."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        seconds = {
            (row["Lanes"], row["Task"], row["Scheme"], row["Seed"]): float(row["Seconds per step"])
            for row in csv.DictReader(stream)
        }
    places = dict.fromkeys((task, scheme) for _, task, scheme, _ in seconds if scheme != BASELINE)

    def ratios(way: str, task: str, scheme: str) -> list[float]:
        seeds = sorted(seed for *place, seed in seconds if place == [way, task, scheme])
        return [
            log(seconds[way, task, scheme, seed] / seconds[way, task, BASELINE, seed]) for seed in seeds
        ]

    def cells(task: str, scheme: str) -> Iterator[str]:
        alone = ratios(WAYS[0], task, scheme)
        yield f"{exp(fmean(alone)):.3f}"
        for way in WAYS[1:]:
            changes = [one - other for one, other in zip(ratios(way, task, scheme), alone, strict=True)]
            half = interval(changes)
            yield f"{fmean(changes):+.1%}" + (f" ± {half:.1%}" if half is not None else "")

    heads = ("task", "scheme", "ratio alone", *WAYS[1:])
    return heads, ((task, scheme, *cells(task, scheme)) for task, scheme in places)


if __name__ == "__main__":
    gather(sys.argv[1:])
