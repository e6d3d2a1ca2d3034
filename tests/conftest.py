"""A whole test session offline, with its own caches, and the command line as a function."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_CACHES = Path(tempfile.mkdtemp(prefix="repro-tests-"))
# Libraries read these when they are imported, so they are set before any test module is.
os.environ |= {
    "REPRO_CACHE": str(_CACHES / "repro"),
    "XDG_CACHE_HOME": str(_CACHES / "xdg"),
    "HF_HOME": str(_CACHES / "hub"),
    "HF_HUB_CACHE": str(_CACHES / "hub" / "hub"),
    "HF_DATASETS_CACHE": str(_CACHES / "hub" / "datasets"),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "80",
}
os.environ.pop("FORCE_COLOR", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the caches of the session."""
    shutil.rmtree(_CACHES, ignore_errors=True)


SMALL: dict[str, object] = {
    "training.steps": 6,
    "training.batch_size": 16,
    "data.train_samples": 64,
    "data.validation_samples": 32,
    "model.vocab_size": 300,
    "model.config.hidden_size": 32,
    "model.config.intermediate_size": 64,
    "model.config.initializer_range": 0.1,
    "experts.count": 4,
    "evaluation.every": 3,
    "evaluation.batch_size": 16,
}
"""Settings of a run that takes a fraction of a second. The wide initialisation gives losses that tell
runs apart from the first step on."""


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit status and its output."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one JSON object that stdout must be."""
        assert self.status == 0, self.err
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


class CommandLine:
    """`repro` as a user calls it, in this process where that is possible."""

    small = SMALL

    def __call__(self, *arguments: object) -> Answer:
        """Call `repro ARGUMENTS` in this process, as if it were a fresh one."""
        from accelerate.state import AcceleratorState

        from repro import cli

        AcceleratorState._reset_state(True)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        out, err, argv = io.StringIO(), io.StringIO(), sys.argv
        sys.argv = ["repro", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    cli.main()
                except SystemExit as stop:
                    assert isinstance(stop.code, int)
                    status = stop.code
        finally:
            sys.argv = argv
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Answer(status, out.getvalue(), err.getvalue())

    def train(self, gate: str, out: Path, *options: object, **changes: object) -> Answer:
        """Train a small run; `changes` replace entries of `SMALL`, or drop them with None."""
        return self(*self.train_arguments(gate, out, *options, **changes))

    @staticmethod
    def train_arguments(gate: str, out: Path, *options: object, **changes: object) -> list[str]:
        """The arguments that `train` calls the command with."""
        settings = {key: value for key, value in (SMALL | changes).items() if value is not None}
        if gate == "dense":
            settings = {key: value for key, value in settings.items() if not key.startswith("experts.")}
        arguments = ["train", "--task", "sst2", "--gate", gate, "--out", out, *options]
        for key, value in settings.items():
            arguments += ["--set", f"{key}={value}"]
        return [str(argument) for argument in arguments]

    @staticmethod
    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        """Start `repro ARGUMENTS` as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "repro", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )


@pytest.fixture(scope="session")
def repro() -> CommandLine:
    """The command line."""
    return CommandLine()


@dataclass(frozen=True)
class Trained:
    """A finished run that tests may read but not change."""

    answer: Answer
    results: Path
    folder: Path
    result: dict[str, Any]


def only_run(results: Path) -> Path:
    """The folder of the one run there is."""
    (folder,) = results.glob("*/runs/*")
    return folder


@pytest.fixture(scope="session")
def trained(repro: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`trained(gate)`: a small finished run of that gate, made once a session."""
    made: dict[str, Trained] = {}

    def make(gate: str) -> Trained:
        if gate not in made:
            results = tmp_path_factory.mktemp(f"results-{gate}")
            answer = repro.train(gate, results)
            assert answer.status == 0, answer.err
            folder = only_run(results)
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            made[gate] = Trained(answer, results, folder, result)
        return made[gate]

    return make


SENTENCES = [
    ("a warm and funny film", 1),
    ("the plot is dull and the cast is bored", 0),
    ("superb from start to end", 1),
    ("nobody could call this film good", 0),
    ("an honest , moving story", 1),
    ("a tired script", 0),
    ("clever , bold and never too long", 1),
    ("two hours of nothing", 0),
]


def sst2_rows(size: int) -> list[dict[str, Any]]:
    """Rows in the column schema of SST-2."""
    return [
        {"idx": index, "sentence": f"{SENTENCES[index % 8][0]} ", "label": SENTENCES[index % 8][1]}
        for index in range(size)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A data folder with a small SST-2 in it."""
    folder = tmp_path / "data"
    for split, size in (("train", 64), ("validation", 32), ("test", 16)):
        write_jsonl(folder / "sst2" / f"{split}.jsonl", sst2_rows(size))
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained BERT with its tokenizer, as `save_pretrained` leaves them."""
    import torch
    import transformers

    from repro.backbones.bert import train_tokenizer

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-bert"
    tokenizer = train_tokenizer([sentence for sentence, _ in SENTENCES * 3], 200)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
