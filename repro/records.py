"""What a run leaves on disk, and how it is written: appended lines, atomic files, one result."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.errors import UserError

SCHEMA_VERSION = 1
"""Version of `result.json`. Its keys are documented in docs/results.md."""
ANALYSIS_VERSION = 1
"""Version of `analysis.json`; published analyses of another version are left out."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things lie on this machine: no part of a run's identity."""

    results: Path
    data: Path | None = None
    model: Path | None = None


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, `results/<scale>/runs/<run id>/`."""

    path: Path

    @property
    def config(self) -> Path:
        """The `RunConfig` as JSON."""
        return self.path / "config.json"

    @property
    def places(self) -> Path:
        """Where the inputs lay on this machine; never copied into a result."""
        return self.path / "places.json"

    @property
    def environment(self) -> Path:
        """Versions, processor and code state, as of the last start."""
        return self.path / "environment.json"

    @property
    def steps(self) -> Path:
        """One line per optimiser step."""
        return self.path / "steps.jsonl"

    @property
    def evals(self) -> Path:
        """One line per point of the evaluation-loss curve."""
        return self.path / "evals.jsonl"

    @property
    def routing(self) -> Path:
        """Routing by layer, one line per step; none for a dense model."""
        return self.path / "routing.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint of an unfinished run."""
        return self.path / "checkpoint"

    @property
    def model(self) -> Path:
        """The trained model and its tokenizer, in `save_pretrained` layout."""
        return self.path / "model"

    @property
    def analysis(self) -> Path:
        """What `repro analyze` found, with sample sequences."""
        return self.path / "analysis.json"

    @property
    def result(self) -> Path:
        """Written last and atomically: its presence means that the run is done."""
        return self.path / "result.json"


def write_json(path: Path, value: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Write atomically: a reader, a crash or another writer sees the old file or a whole new one.

    Args:
        indent: spaces a level; None writes one line.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=indent, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        UserError: the file is missing, unreadable or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, one JSON object a line."""
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a record file; a last line cut short by a crash is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


def truncate_jsonl(path: Path, last_step: int) -> None:
    """Drop the rows after `last_step`: what a killed run recorded beyond its checkpoint."""
    if not path.exists():
        return
    kept = [row for row in read_jsonl(path) if row["step"] <= last_step]
    scratch = path.with_name(path.name + ".tmp")
    scratch.unlink(missing_ok=True)
    append_jsonl(scratch, kept)
    scratch.replace(path)


def finished_runs(scale_folder: Path) -> list[dict[str, Any]]:
    """All results below `results/<scale>`, sorted by run id."""
    return [read_json(path) for path in sorted(scale_folder.glob("runs/*/result.json"))]


@dataclass(frozen=True)
class Published:
    """What tables are derived from: the results of a scale, and which of them each study compares."""

    results: Mapping[str, dict[str, Any]]
    """Run id -> `result.json`."""
    studies: Mapping[str, dict[str, Any]]
    """Study -> `{"tasks": {task: {variant: [run id, ...]}}, "failed": {run id: reason}}`."""
    analyses: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Run id -> what `repro analyze` published of it."""
    bench: Sequence[dict[str, Any]] = ()
    """The cases of the layer benchmark."""

    @staticmethod
    def read(scale_folder: Path) -> "Published":
        """Read run folders, `runs.jsonl`, `studies/`, `analysis/` and `bench.json` of `results/<scale>`.

        Run folders are not kept in git, `runs.jsonl` is; so a fresh clone has the published results,
        and a new run joins them. A run folder stands for its run.
        """
        known = {result["run_id"]: result for result in read_jsonl(scale_folder / "runs.jsonl")}
        known |= {result["run_id"]: result for result in finished_runs(scale_folder)}
        studies = {path.stem: read_json(path) for path in sorted(scale_folder.glob("studies/*.json"))}
        found = {path.stem: read_json(path) for path in sorted(scale_folder.glob("analysis/*.json"))}
        analyses = {key: value for key, value in found.items() if value.get("version") == ANALYSIS_VERSION}
        bench = scale_folder / "bench.json"
        return Published(
            results={run_id: known[run_id] for run_id in sorted(known)},
            studies=studies,
            analyses=analyses,
            bench=read_json(bench)["cases"] if bench.exists() else (),
        )

    def of_study(self, study: str) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Task -> variant -> the finished runs among those asked for; empty for an unknown study."""
        tasks = self.studies.get(study, {}).get("tasks", {})
        return {
            task: {
                variant: [self.results[run_id] for run_id in run_ids if run_id in self.results]
                for variant, run_ids in variants.items()
            }
            for task, variants in tasks.items()
        }

    def analyzed(self, gate: str) -> dict[str, list[dict[str, Any]]]:
        """Task -> analyses of the runs with a gate, in the order of run ids; tasks with one at least.

        Of a task that the study `schemes` lists with this gate, only its runs count, so that those of
        an ablation are not mixed in; of others every run with that gate.
        """
        studied = self.studies.get("schemes", {}).get("tasks", {})
        found: dict[str, list[dict[str, Any]]] = {}
        for run_id, analysis in sorted(self.analyses.items()):
            listed = studied.get(analysis["task"], {}).get(gate)
            if run_id in listed if listed is not None else analysis["gate"] == gate:
                found.setdefault(analysis["task"], []).append(analysis)
        return found

    def missing(self, study: str, task: str, variant: str) -> list[str]:
        """Why runs of this row are not there: one reason each."""
        plan = self.studies[study]
        return [
            f"{run_id}: {plan['failed'].get(run_id, 'not run')}"
            for run_id in plan["tasks"][task][variant]
            if run_id not in self.results
        ]
