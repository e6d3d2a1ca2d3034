"""The rows of a study's table: every variant of every task, compared with a baseline variant of that task."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from repro import paper, plugins
from repro.records import Published
from repro.tables._statistics import mean
from repro.tables._target import mean_curve, norm_time, seconds_to, steady

STUDY = "schemes"
BASELINE = "top-2"
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "bleu": "BLEU Score",
    "f1": "F1 Score",
    "rouge1": "ROUGE-1",
    "perplexity": "Perplexity",
}
"""Metrics as Table 3 of the paper names them."""
DISTURBED = 0.1
"""If other virtual machines took more than this share of the processors' time, tables say so."""

Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SchemeRow:
    """One scheme of one task: its finished runs, the baseline's, and why others are missing."""

    task: str
    scheme: str
    """Its name in the study: a gate, or a setting of one."""
    runs: Sequence[Result]
    against: str
    """The baseline's name."""
    baseline: Sequence[Result]
    missing: Sequence[str]

    @property
    def title(self) -> str:
        """The task as the paper names it."""
        return title(self.task)

    @property
    def metric(self) -> str:
        """The metric as the paper names it."""
        name = str(plugins.constants("tasks", self.task)["METRIC"])
        return METRIC_TITLES.get(name, name)

    @property
    def paper(self) -> dict[str, float]:
        """The paper's row: `time`, `flops`, `performance`; empty if it has none."""
        return paper.scheme(self.task, self.scheme) or {}

    @property
    def paper_baseline(self) -> dict[str, float]:
        """The paper's top-2 row."""
        return paper.scheme(self.task, BASELINE) or {}

    def values(self, get: Callable[[Result], float | None]) -> list[float]:
        """A number of every run that has it."""
        return [value for run in self.runs if (value := get(run)) is not None]

    def mean(self, get: Callable[[Result], float | None]) -> float | None:
        """Its mean over the runs."""
        return mean(self.values(get))

    def against_baseline(self, get: Callable[[Result], float | None]) -> float | None:
        """Ratio of the means of this scheme and of the baseline."""
        mine, others = self.mean(get), self.baseline_mean(get)
        return mine / others if mine is not None and others else None

    def baseline_mean(self, get: Callable[[Result], float | None]) -> float | None:
        """The baseline's mean over its runs."""
        return mean([value for run in self.baseline if (value := get(run)) is not None])

    @property
    def target(self) -> float | None:
        """Final evaluation loss of the baseline, mean over its runs."""
        curve = mean_curve(self.baseline)
        return curve[-1][1] if curve else None

    @property
    def seconds_to_target(self) -> float | None:
        """Training seconds until the mean curve of the runs first reaches the target."""
        return None if self.target is None else seconds_to(self.target, mean_curve(self.runs))

    @property
    def norm_time(self) -> float | None:
        """Norm. Training Time: seconds to the target, relative to those of the baseline."""
        return norm_time(self.runs, self.baseline)

    @property
    def norm_time_steady(self) -> float | None:
        """The same if every step had taken the median time of its run."""
        return norm_time([steady(run) for run in self.runs], [steady(run) for run in self.baseline])

    @property
    def norm_time_by_seed(self) -> list[float | None]:
        """The same for each run against the baseline run of its own seed, with that run's final loss."""
        return [
            norm_time([run], [base for base in self.baseline if base["seed"] == run["seed"]])
            for run in self.runs
        ]

    @property
    def timed_apart(self) -> bool:
        """Whether a run is known not to have taken turns with the baseline's run of its seed."""
        bases = {run["seed"]: run["run_id"] for run in self.baseline}
        return self.scheme != self.against and any(
            run["seed"] in bases and bases[run["seed"]] not in run.get("beside", [bases[run["seed"]]])
            for run in self.runs
        )

    @property
    def checkpoint(self) -> str | None:
        """What the runs were fine-tuned from: a hub id, or the name of a local folder; None if nothing."""
        names = [run["config"]["model"]["checkpoint"] for run in self.runs]
        known = {name.split(":")[1] if name.startswith("dir:") else name for name in names if name}
        return ", ".join(sorted(known)) or None

    @property
    def reason(self) -> str | None:
        """Why cells of this row are empty."""
        if not self.runs:
            return "; ".join(self.missing) or "not run"
        if self.target is None:
            return f"no {self.against} run to compare with"
        if self.seconds_to_target is None:
            final = mean_curve(self.runs)[-1][1]
            return f"target loss {self.target:.4g} not reached: final loss {final:.4g}"
        if self.norm_time is None:
            return f"{self.against} is at its final loss from the start: it learned nothing"
        unmeasured = [str(run["seed"]) for run in self.runs if performance(run) is None]
        if unmeasured:
            return f"{self.metric} of seed {', '.join(unmeasured)} is not a finite number"
        return "; ".join(self.missing) or None


def scheme_rows(
    published: Published, study: str = STUDY, against: Callable[[str], str] = lambda scheme: BASELINE
) -> Iterator[SchemeRow]:
    """All rows, tasks in the paper's order, schemes in the study's.

    Args:
        against: the baseline of each scheme.
    """
    tasks = published.of_study(study)
    for task in tasks_in_order(tasks):
        for scheme, runs in tasks[task].items():
            yield SchemeRow(
                task=task,
                scheme=scheme,
                runs=runs,
                against=against(scheme),
                baseline=tasks[task].get(against(scheme), []),
                missing=published.missing(study, task, scheme),
            )


def reasons(rows: Iterable[SchemeRow]) -> list[str]:
    """One line for every row that has an empty cell, and one each if times were disturbed or taken apart.

    Before them, one for every task that was fine-tuned, on what it started from.
    """
    rows = list(rows)
    found = list(dict.fromkeys(f"{row.title}: from {row.checkpoint}" for row in rows if row.checkpoint))
    found += [f"{row.title}, {row.scheme}: {row.reason}" for row in rows if row.reason]
    shares = [share for row in rows if (share := row.mean(stolen_share) or 0.0) > DISTURBED]
    if shares:
        most = f"up to {max(shares):.0%} of the CPUs went to other virtual machines"
        found.append(f"{len(shares)} rows are too slow: {most}")
    apart = [row for row in rows if row.timed_apart]
    if apart:
        found.append(f"{len(apart)} rows were not timed in turns with {apart[0].against}: loads may differ")
    return found


def tasks_in_order(names: Iterable[str]) -> list[str]:
    """Tasks as the paper orders them, then others by name."""
    order = list(paper.tables()["table3"])
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def title(task: str) -> str:
    """The task as the paper names it."""
    return str(plugins.constants("tasks", task)["TITLE"])


def stolen_share(run: Result) -> float | None:
    """Share of the processors' time that other virtual machines took; not in older results."""
    value: float | None = run.get("stolen_share")
    return value


def performance(run: Result) -> float | None:
    """The task's metric, with the gate as trained."""
    value: float | None = run["metric"]["value"]
    return value


def performance_top_1(run: Result) -> float | None:
    """The task's metric with the best expert alone; None for dense."""
    value: float | None = run["metric_top1"] and run["metric_top1"]["value"]
    return value


def flops(run: Result) -> float | None:
    """FLOPs of the forward pass per trained token, as routed."""
    value: float | None = run["flops"]["per_token"]
    return value


def seconds_per_step(run: Result) -> float | None:
    """Median training seconds of a step."""
    value: float | None = run["seconds_per_step"]
    return value


def spaced(values: Iterable[float | None]) -> str:
    """Numbers of the seeds; `-` where one was not measured, so that places stay those of the seeds."""
    return " ".join("-" if value is None else f"{value:.4g}" for value in values)


def mean_experts(key: str) -> Callable[[Result], float | None]:
    """Mean number of experts per token; key `routing` (training) or `routing_eval`."""

    def get(run: Result) -> float | None:
        value: float | None = (run[key] or {}).get("mean_experts")
        return value

    return get


def share_several(key: str) -> Callable[[Result], float | None]:
    """Share of tokens given two or more experts; key `routing` (training) or `routing_eval`."""

    def get(run: Result) -> float | None:
        shares = (run[key] or {}).get("share_by_count")
        return sum(shares[2:]) if shares else None

    return get
