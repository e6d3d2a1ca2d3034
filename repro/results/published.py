"""Everything that a scale has published, parsed once: what tables and figures are functions of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repro.results.analysis import ANALYSIS_VERSION, Analysis
from repro.results.base import parse_object, read_bytes
from repro.results.bench import Bench, BenchCase
from repro.results.files import whole_lines
from repro.results.run import RunResult, parse_result, read_result
from repro.results.study import Study


@dataclass(frozen=True)
class Published:
    """The results of a scale, which of them each study compares, analyses and layer timings."""

    results: Mapping[str, RunResult]
    """By run id."""
    studies: Mapping[str, Study]
    """By name."""
    analyses: Mapping[str, Analysis] = field(default_factory=dict)
    """By run id."""
    bench: Sequence[BenchCase] = ()

    @staticmethod
    def read(scale_folder: Path) -> "Published":
        """Read run folders, `runs.jsonl`, `studies/`, `analysis/` and `bench.json` of `results/<scale>`.

        Run folders are not kept in git, `runs.jsonl` is; so a fresh clone has the published results,
        and a new run joins them. A run folder stands for its run.

        Raises:
            UserError: a file is damaged.
        """
        kept = scale_folder / "runs.jsonl"
        results = [
            parse_result(line, f"{kept}: line {number}") for number, line in enumerate(whole_lines(kept), 1)
        ]
        results += finished_runs(scale_folder)
        by_id = {result.run_id: result for result in results}
        bench = scale_folder / "bench.json"
        return Published(
            results={run_id: by_id[run_id] for run_id in sorted(by_id)},
            studies={path.stem: Study.read(path) for path in sorted(scale_folder.glob("studies/*.json"))},
            analyses=_analyses(scale_folder),
            bench=Bench.read(bench).cases if bench.exists() else (),
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


def finished_runs(scale_folder: Path) -> list[RunResult]:
    """Read all results below `results/<scale>`, sorted by run id."""
    return [read_result(path) for path in sorted(scale_folder.glob("runs/*/result.json"))]


def _analyses(scale_folder: Path) -> dict[str, Analysis]:
    """Read the published analyses of the present version, by run id."""
    analyses = {}
    for path in sorted(scale_folder.glob("analysis/*.json")):
        text = read_bytes(path)
        if parse_object(text, path).get("version") == ANALYSIS_VERSION:
            analyses[path.stem] = Analysis.parse(text, path)
    return analyses
