"""Where a run's files lie, and how they are written: atomic JSON, appended lines."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from repro.results.base import Record, parse_object, read_bytes


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """Where results, data and model lie on this machine: no part of a run's identity."""

    results: Path
    data: Path | None = None
    model: Path | None = None


class InputPaths(Record):
    """`places.json`: where a run's inputs lay on this machine; never copied into a result."""

    data: str | None
    model: str | None


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, `results/<scale>/runs/<run id>/`."""

    path: Path

    @property
    def config(self) -> Path:
        """The `RunConfig` as JSON."""
        return self.path / "config.json"

    @property
    def paths(self) -> Path:
        """`InputPaths` as JSON."""
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


def write_json(path: Path, value: Mapping[str, object], *, indent: int | None = 1) -> None:
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


def read_json(path: Path) -> dict[str, JsonValue]:
    """Read one JSON object that has no model of its own.

    Raises:
        UserError: the file is missing, unreadable or not a JSON object.
    """
    return parse_object(read_bytes(path), path)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Append rows, one JSON object a line."""
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def whole_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a record file; a last one cut short by a crash is left out, as is a missing file."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield line


def truncate_jsonl(path: Path, last_step: int) -> None:
    """Drop the rows after `last_step`: what a killed run recorded beyond its checkpoint."""
    if not path.exists():
        return
    kept = [row for line in whole_lines(path) if (row := json.loads(line))["step"] <= last_step]
    scratch = path.with_name(path.name + ".tmp")
    scratch.unlink(missing_ok=True)
    append_jsonl(scratch, kept)
    scratch.replace(path)
