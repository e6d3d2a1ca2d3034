"""Everything that a scale has published, parsed once: what tables and figures are functions of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from repro.errors import UserError
from repro.results.analysis import Analysis, read_analysis
from repro.results.base import read_bytes
from repro.results.bench import Bench, BenchCase
from repro.results.parallel import ParallelCase
from repro.results.run import RunResult, parse_result, read_result
from repro.results.study import Study
from repro.results.thinning import Thinning, Thinnings

FOLDER = "published"
"""Folder beside those of the scales: `results/published/<scale>` is in git, `results/<scale>` is not."""
_Value = TypeVar("_Value")
_LINES = "restore it, or delete it to start from the run folders"
_RESULT = "delete its folder to train it again"
_STUDY = "restore it, or delete it: `repro ablate` writes it again"
_ANALYSIS = "restore it, or delete it: `repro analyze` writes it again"
_BENCH = "restore it, or delete it: `repro bench` writes it again"
_THINNING = "restore it, or delete it: `repro ablate threshold --no-train` writes it again"


@dataclass(frozen=True)
class Published:
    """The results of a scale, which of them each study compares, analyses, layer timings, thinned models."""

    results: Mapping[str, RunResult]
    """By run id."""
    studies: Mapping[str, Study]
    """By name."""
    analyses: Mapping[str, Analysis] = field(default_factory=dict)
    """By run id."""
    bench: Sequence[BenchCase] = ()
    parallel: Sequence[ParallelCase] = ()
    """Layers whose experts are spread over processes."""
    thinnings: Sequence[Thinning] = ()
    """Pretrained MoE models with other gates, without training."""

    @staticmethod
    def read(scale_folder: Path) -> "Published":
        """Read the results of a scale: run folders, `runs.jsonl`, `studies/`, `analysis/`, `bench.json`, ...

        What is in git has no run folders, only `runs.jsonl`; in `results/<scale>` a new run joins those of
        that file, and a run folder stands for its run.

        Raises:
            UserError: with one line for each file that is damaged.
        """
        problems: list[str] = []
        results = _read_all(_runs_jsonl, [scale_folder / "runs.jsonl"], _LINES, problems)
        runs = _read_all(_named_result, scale_folder.glob("runs/*/result.json"), _RESULT, problems)
        studies = _read_all(_named_study, scale_folder.glob("studies/*.json"), _STUDY, problems)
        analyses = _read_all(_named_analysis, scale_folder.glob("analysis/*.json"), _ANALYSIS, problems)
        bench = _read_all(_bench, [scale_folder / "bench.json"], _BENCH, problems)
        thinnings = _read_all(_thinnings, [scale_folder / "thinning.json"], _THINNING, problems)
        if problems:
            raise UserError(*problems)
        by_id = {run.run_id: run for run in (*(run for kept in results for run in kept), *runs)}
        return Published(
            results={run_id: by_id[run_id] for run_id in sorted(by_id)},
            studies={study.study: study for study in studies},
            analyses={analysis.run_id: analysis for analysis in analyses},
            bench=tuple(case for read in bench for case in read.cases),
            parallel=tuple(case for read in bench for case in read.parallel),
            thinnings=tuple(curve for read in thinnings for curve in read.curves),
        )

    @property
    def commands(self) -> dict[str, str]:
        """Run id -> the command that asked for it, of all studies."""
        return {run_id: text for study in self.studies.values() for run_id, text in study.commands.items()}

    def over(self, other: "Published") -> "Published":
        """Lay these results over others: of what both have, these stand; of a study task by task."""
        studies = {
            name: study.over(other.studies[name]) if name in other.studies else study
            for name, study in self.studies.items()
        }
        return Published(
            results={**other.results, **self.results},
            studies={**other.studies, **studies},
            analyses={**other.analyses, **self.analyses},
            bench=[*{case.key: case for case in (*other.bench, *self.bench)}.values()],
            parallel=[*{case.key: case for case in (*other.parallel, *self.parallel)}.values()],
            thinnings=[*{curve.key: curve for curve in (*other.thinnings, *self.thinnings)}.values()],
        )

    def compared(self) -> "Published":
        """Return the same without the runs that no study compares, and their analyses."""
        listed = {run_id for study in self.studies.values() for run_id in study.run_ids}
        return replace(
            self,
            results={run_id: run for run_id, run in sorted(self.results.items()) if run_id in listed},
            analyses={run_id: one for run_id, one in self.analyses.items() if run_id in listed},
        )

    def of_study(self, study: str) -> dict[str, dict[str, list[RunResult]]]:
        """Return task -> variant -> the finished runs among those asked for; empty for an unknown study."""
        if study not in self.studies:
            return {}
        return {
            task: {
                variant: [self.results[run_id] for run_id in run_ids if run_id in self.results]
                for variant, run_ids in variants.items()
            }
            for task, variants in self.studies[study].tasks.items()
        }

    def analyzed(self, gate: str) -> dict[str, list[Analysis]]:
        """Return task -> analyses of the runs with a gate, in the order of run ids; tasks with one at least.

        Of a task that the study `schemes` lists with this gate, only its runs count, so that those of
        an ablation are not mixed in; of others every run with that gate.
        """
        studied = self.studies["schemes"].tasks if "schemes" in self.studies else {}
        by_task: dict[str, list[Analysis]] = {}
        for run_id, analysis in sorted(self.analyses.items()):
            compared = studied.get(analysis.task, {}).get(gate)
            if run_id in compared if compared is not None else analysis.gate == gate:
                by_task.setdefault(analysis.task, []).append(analysis)
        return by_task

    def missing(self, study: str, task: str, variant: str) -> list[str]:
        """Say why runs of this row are not there: one reason each."""
        runs = self.studies[study]
        return [
            f"{run_id}: {runs.failed.get(run_id, 'not run')}"
            for run_id in runs.tasks[task][variant]
            if run_id not in self.results
        ]


def _read_all(
    read: Callable[[Path], _Value], paths: Iterable[Path], way_out: str, problems: list[str]
) -> list[_Value]:
    """Read files in the order of their names; add what is wrong with one and the way out to the problems."""
    values = []
    for path in sorted(paths):
        try:
            values.append(read(path))
        except UserError as error:
            problems += [f"{problem}; {way_out}" for problem in error.problems]
    return values


def _runs_jsonl(path: Path) -> list[RunResult]:
    """Read `runs.jsonl`, which is written as a whole, so that a line without an end is damage."""
    if not path.exists():
        return []
    *lines, rest = read_bytes(path).split(b"\n")
    if rest or not lines:
        raise UserError(f"{path}: line {len(lines) + 1}: cut short")
    return [parse_result(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def _named_result(path: Path) -> RunResult:
    result = read_result(path)
    _check_name(path, path.parent.name, result.run_id, "run")
    return result


def _named_study(path: Path) -> Study:
    study = Study.read(path)
    _check_name(path, path.stem, study.study, "study")
    return study


def _named_analysis(path: Path) -> Analysis:
    analysis = read_analysis(path)
    _check_name(path, path.stem, analysis.run_id, "analysis of run")
    return analysis


def _bench(path: Path) -> Bench:
    return Bench.read(path) if path.exists() else Bench(cases=[])


def _thinnings(path: Path) -> Thinnings:
    return Thinnings.read(path) if path.exists() else Thinnings()


def _check_name(path: Path, expected: str, name: str, what: str) -> None:
    """Refuse a file under the name of another: links and files are named by what is in it."""
    if name != expected:
        raise UserError(f"{path}: holds the {what} {name!r}, not {expected!r}")
