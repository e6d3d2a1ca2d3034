"""Where a run's files lie, and how they are written: whole files atomically, records by appending lines."""

import fcntl
import glob
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from repro.errors import UserError
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
    """The data folder; None of a generated corpus or of the hub."""
    model: str | None
    """The folder of the model that the run started from; None if it has none."""


class ModelFiles(Record):
    """`model.json`: what the saved model consists of."""

    files: dict[str, str]
    """File of the folder -> SHA-256."""


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
        """`Environment` as JSON: versions, processor and code state, as of the last start."""
        return self.path / "environment.json"

    @property
    def steps(self) -> Path:
        """One `StepRecord` per optimiser step."""
        return self.path / "steps.jsonl"

    @property
    def evals(self) -> Path:
        """One `EvalRecord` per point of the curve of the loss on the dev split."""
        return self.path / "evals.jsonl"

    @property
    def routing(self) -> Path:
        """One `RoutingRecord` per step: routing by layer; none for a dense model."""
        return self.path / "routing.jsonl"

    @property
    def exchanges(self) -> Path:
        """Exchanges of tokens with spread experts, one line per step, if they are recorded."""
        return self.path / "exchanges.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoints of an unfinished run; of a finished one that of its trunk, which may go on.

        Each is a folder `step-<n>`; its `manifest.json` has digests of its files and of the records so far.
        """
        return self.path / "checkpoint"

    @property
    def cooldown(self) -> "RunFolder":
        """Records and checkpoints of the cooldown, the branch that ends at the budget.

        The files of the same names beside it are those of the trunk.
        """
        return RunFolder(self.path / "cooldown")

    @property
    def model(self) -> Path:
        """The trained model and its tokenizer, in `save_pretrained` layout (safetensors).

        Settings of the gate are in its `config.json`.
        """
        return self.path / "model"

    @property
    def model_files(self) -> Path:
        """`ModelFiles` as JSON: `eval` and `analyze` refuse a model that is not what was saved."""
        return self.path / "model.json"

    @property
    def analysis(self) -> Path:
        """`Analysis` as JSON: what `repro analyze` found, with sample sequences."""
        return self.path / "analysis.json"

    @property
    def result(self) -> Path:
        """`RunResult` as JSON, written last and atomically: its presence means that the run is done."""
        return self.path / "result.json"


def json_text(
    value: Mapping[str, object], where: object, *, indent: int | None = None, ensure_ascii: bool = True
) -> str:
    """Return a value as JSON, on one line by default.

    Args:
        where: the file, for the message.

    Raises:
        ValueError: a number in it is not finite, which JSON does not have.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def write_json(path: Path, value: Mapping[str, object], *, indent: int | None = 1) -> None:
    """Write one JSON object atomically.

    Args:
        indent: spaces a level; None writes one line.

    Raises:
        ValueError: a number in it is not finite; the file stays as it was.
    """
    text = json_text(value, path, indent=indent, ensure_ascii=False)
    write_file(path, f"{text}\n".encode())


def write_file(path: Path, content: bytes) -> None:
    """Write atomically: a reader, a crash or another writer sees the old file or a whole new one.

    What a killed writer of this file left beside it is removed.
    """
    _remove_leftovers(path)
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with scratch.open("xb") as stream:
            # Where files cannot be locked, leftovers stay.
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the scratch files of a file whose writers were killed: nobody holds their lock."""
    for scratch in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), scratch.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that is still empty may be about to be locked.
            if os.fstat(stream.fileno()).st_size:
                scratch.unlink()


def read_json(path: Path) -> dict[str, JsonValue]:
    """Read one JSON object that has no model of its own.

    Raises:
        UserError: the file is missing, unreadable or not a JSON object.
    """
    return parse_object(read_bytes(path), path)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Append rows, one JSON object a line.

    Raises:
        ValueError: a number in them is not finite; nothing is appended.
    """
    lines = [json_text(row, path) + "\n" for row in rows]
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(lines)


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a record file; a last one cut short by a crash is left out, as is a missing file.

    Raises:
        UserError: it cannot be read.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield line
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def name_of_model(folder: Path) -> str:
    """Return the name of a model's folder; of one that a run left, `RUN/model`, the run's id."""
    folder = folder.resolve()
    run = RunFolder(folder.parent)
    return run.path.name if folder == run.model and run.result.is_file() else folder.name
