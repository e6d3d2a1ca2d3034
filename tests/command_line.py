"""`repro` as a user calls it, in this process, with settings of runs that take a fraction of a second."""

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nursery import Nursery, Started

Json = dict[str, Any]
"""An object as it stands in a file or on stdout: its keys and types are what tests of files are about."""
Settings = Mapping[str, object]
"""Dotted key of a configuration -> value, as `--set` gives it; None leaves the key out."""

SMALL: dict[str, object] = {
    "training.steps": 6,
    "training.batch_size": 16,
    "training.learning_rate": 1e-3,
    "data.train_samples": 64,
    "data.dev_samples": 16,
    "data.validation_samples": 32,
    "model.vocab_size": 300,
    "model.config.hidden_size": 32,
    "model.config.intermediate_size": 64,
    "model.config.initializer_range": 0.1,
    "experts.count": 4,
    "evaluation.points": 2,
    "evaluation.batch_size": 16,
}
"""Settings of a run that takes a fraction of a second. The wide initialisation gives losses that tell
runs apart from the first step on."""

_FEW = {
    "training.steps": 4,
    "data.train_samples": 12,
    "data.dev_samples": 6,
    "data.validation_samples": 8,
    "model.vocab_size": 400,
    "experts.count": 4,
    "evaluation.points": 2,
    "evaluation.batch_size": 4,
}
_SEQ2SEQ = _FEW | {
    "training.batch_tokens": 200,
    "model.config.d_model": 32,
    "model.config.encoder_layers": 1,
    "model.config.encoder_ffn_dim": 64,
    "model.config.decoder_ffn_dim": 48,
    "model.config.init_std": 0.1,
    "task.max_target_length": 12,
    "task.beams": 2,
}
_DECODER = _FEW | {
    "training.batch_size": 4,
    "training.learning_rate": 2e-3,
    "data.max_length": 48,
    "model.config.n_embd": 32,
    "model.config.n_inner": 64,
    "model.config.n_layer": 2,
    "model.config.initializer_range": 0.1,
}
SMALL_BY_TASK: dict[str, dict[str, object]] = {
    "sst2": SMALL,
    "squad": {
        **_FEW,
        "training.batch_size": 8,
        "data.max_length": 64,
        "model.config.hidden_size": 32,
        "model.config.intermediate_size": 64,
        "model.config.num_hidden_layers": 2,
        "model.config.initializer_range": 0.1,
        "task.stride": 8,
    },
    "wmt19": {**_SEQ2SEQ, "data.max_length": 32},
    "cnn_dailymail": {**_SEQ2SEQ, "data.max_length": 48, "training.batch_tokens": 300},
    "wikitext": {**_DECODER},
    "soda": {**_DECODER},
    "arc": {**_DECODER},
}
"""Settings of such a run for each task: four steps, two epochs or nearly, layers that differ in width."""


def without_model(task: str = "sst2") -> dict[str, object]:
    """Drop the sizes of a small run's model: a checkpoint brings its own."""
    return {key: None for key in SMALL_BY_TASK[task] if key.startswith("model.")}


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit status and its output."""

    status: int
    out: str
    err: str

    def json(self) -> Json:
        """Read the one JSON object that stdout must be."""
        assert self.status == 0, self.err
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


class CommandLine:
    """`repro` as a user calls it, in this process where that is possible."""

    small = SMALL
    small_by_task = SMALL_BY_TASK

    def __call__(self, *arguments: object) -> Answer:
        """Call `repro ARGUMENTS` in this process, as if it were a fresh one."""
        from accelerate.state import AcceleratorState

        from repro.cli.main import main

        AcceleratorState._reset_state(True)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        out, err, argv = io.StringIO(), io.StringIO(), sys.argv
        sys.argv = ["repro", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main()
                except SystemExit as stop:
                    assert isinstance(stop.code, int)
                    status = stop.code
        finally:
            sys.argv = argv
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Answer(status, out.getvalue(), err.getvalue())

    def train(
        self, gate: str, out: Path, *options: object, task: str = "sst2", settings: Settings | None = None
    ) -> Answer:
        """Train a small run with options, and settings that replace those of `SMALL_BY_TASK`."""
        return self(*self.train_arguments(gate, out, *options, task=task, settings=settings))

    @staticmethod
    def train_arguments(
        gate: str, out: Path, *options: object, task: str = "sst2", settings: Settings | None = None
    ) -> list[str]:
        """Return the arguments that `train` calls the command with."""
        merged = SMALL_BY_TASK[task] | dict(settings or {})
        kept = {key: value for key, value in merged.items() if value is not None}
        if gate == "dense":
            kept = {key: value for key, value in kept.items() if not key.startswith("experts.")}
        arguments = ["train", "--task", task, "--gate", gate, "--out", out, *options]
        for key, value in kept.items():
            arguments += ["--set", f"{key}={value}"]
        return [str(argument) for argument in arguments]

    def __init__(self) -> None:
        self._nursery = Nursery()

    def start(self, *arguments: object) -> Started:
        """Start `repro ARGUMENTS` as a process that leads a group of its own; it need not import anything."""
        return self._nursery.start([str(argument) for argument in arguments])

    @staticmethod
    def start_fresh(*arguments: object) -> subprocess.Popen[str]:
        """Start the same as a user does, in a new interpreter, which takes seconds."""
        return subprocess.Popen(
            [sys.executable, "-m", "repro", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def close(self) -> None:
        """End what processes were started from."""
        self._nursery.close()


@dataclass(frozen=True)
class Trained:
    """A finished run that tests may read but not change."""

    answer: Answer
    results: Path
    folder: Path
    result: Json


class TrainedRuns(Protocol):
    """Small finished runs, each made once a session."""

    def __call__(self, gate: str, task: str = "sst2") -> Trained:
        """Return the run of a gate on a task."""
        ...


# --- files of a results folder -------------------------------------------------------------------


def only_run(results: Path) -> Path:
    """Return the folder of the one run there is."""
    (folder,) = (path for path in results.glob("*/runs/*") if path.is_dir())
    return folder


def read_object(path: Path) -> Json:
    """Read a file that is one JSON object."""
    value = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def read_lines(path: Path) -> list[Json]:
    """Read the whole lines of a record file, each one JSON object; none of a missing file."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def read_legs(folder: Path, name: str = "steps.jsonl") -> tuple[list[Json], list[Json]]:
    """Read a record file of the trunk of a run, and that of its cooldown; both have records."""
    trunk, branch = (read_lines(part / name) for part in (folder, folder / "cooldown"))
    assert trunk and branch
    return trunk, branch


def read_path(folder: Path) -> list[Json]:
    """Read the steps that led to a run's model: those of the trunk before the branch, and of the branch."""
    trunk, branch = (read_lines(part / "steps.jsonl") for part in (folder, folder / "cooldown"))
    return trunk[: branch[0]["step"] - 1] + branch if branch else trunk


def timeless(record: Json) -> Json:
    """Leave out what differs between two runs of the same numbers."""
    return {key: value for key, value in record.items() if key not in ("seconds", "train_seconds")}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Read all files below a folder, with the times when they were written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }
