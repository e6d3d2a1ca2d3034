"""Table of step times of runs alone and on lanes; as a command: gather it from four folders of results.

python docs/lanes.py ALONE ONE TWO FOUR    # what --out was in the four commands of performance.md
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from math import exp, log
from pathlib import Path
from statistics import fmean, variance

from repro.report.statistics import interval
from repro.results.published import Published

FILE = Path(__file__).parent.parent / "results" / "published" / "mini" / "lanes.csv"
WAYS = ("alone", "1 lane", "2 lanes", "4 lanes")
HEADS = ("Lanes", "Task", "Scheme", "Seed", "Seconds per step", "Fair steps", "Steps", "Processor", "Code")
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
            run.environment.code_state,
        )
        for way, folder in zip(WAYS, folders, strict=True)
        for run in Published.read(Path(folder) / "mini").results.values()
    ]
    with FILE.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([HEADS, *rows])


def fairness() -> tuple[Sequence[str], Iterator[Sequence[str]]]:
    """Return heads and rows: ratios of step times to top-2's of runs alone, and the change of each on lanes.

    The last row has the standard deviation over seeds of a ratio's logarithm, pooled over places.
    """
    with FILE.open(encoding="utf-8", newline="") as stream:
        seconds = {
            (row["Lanes"], row["Task"], row["Scheme"], row["Seed"]): float(row["Seconds per step"])
            for row in csv.DictReader(stream)
        }
    places = dict.fromkeys((task, scheme) for _, task, scheme, _ in seconds if scheme != BASELINE)
    seeds = sorted({seed for *_, seed in seconds})

    def logs(way: str, place: tuple[str, str]) -> list[float]:
        """Logarithms of the ratios of a place, by seed."""
        task, scheme = place
        return [log(seconds[way, task, scheme, seed] / seconds[way, task, BASELINE, seed]) for seed in seeds]

    def changes(where: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Change of the mean over places on lanes, in each way."""
        for way in WAYS[1:]:
            differences = [
                [one - other for one, other in zip(logs(way, place), logs(WAYS[0], place), strict=True)]
                for place in where
            ]
            by_seed = [exp(fmean(of_seed)) - 1 for of_seed in zip(*differences, strict=True)]
            half = interval(by_seed)
            yield f"{fmean(by_seed):+.1%}" + (f" ± {half:.1%}" if half is not None else "")

    def rows() -> Iterator[Sequence[str]]:
        for task, scheme in places:
            ratio = exp(fmean(logs(WAYS[0], (task, scheme))))
            yield (task, scheme, f"{ratio:.3f}", *changes([(task, scheme)]))
        yield ("all", "all", "", *changes(places))
        spreads = (fmean(variance(logs(way, place)) for place in places) ** 0.5 for way in WAYS)
        yield ("spread over seeds", "", *(f"{spread:.1%}" for spread in spreads))

    return ("task", "scheme", "ratio alone", *WAYS[1:]), rows()


if __name__ == "__main__":
    if len(sys.argv) != 1 + len(WAYS):
        sys.exit(__doc__)
    gather(sys.argv[1:])
