"""A whole test session offline, with its own caches, and what tests of several folders share."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, Trained, TrainedRuns, only_run, read_object
from rows_by_hand import FolderOf, RowsOf, rows_of, write_splits

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


@pytest.fixture(autouse=True, scope="session")
def nothing_stolen() -> Iterator[None]:
    """What tables say must not depend on what other virtual machines do while they are tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repro.machine.cpu_steal_seconds", lambda: 0.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def nothing_synced() -> Iterator[None]:
    """A test may kill a process, never the machine: no file has to be on the disk itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def cli() -> Iterator[CommandLine]:
    """The command line."""
    command_line = CommandLine()
    yield command_line
    command_line.close()


@pytest.fixture(scope="session")
def trained(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> TrainedRuns:
    """`trained(gate, task)`: a small finished run of that gate, made once a session."""
    made: dict[tuple[str, str], Trained] = {}

    def make(gate: str, task: str = "sst2") -> Trained:
        if (gate, task) not in made:
            results = tmp_path_factory.mktemp(f"results-{task}-{gate}")
            answer = cli.train(gate, results, task=task)
            assert answer.status == 0, answer.err
            folder = only_run(results)
            made[gate, task] = Trained(answer, results, folder, read_object(folder / "result.json"))
        return made[gate, task]

    return make


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A data folder with a small SST-2 in it."""
    return write_splits(tmp_path / "data", "sst2", train=64, validation=32, test=16)


@pytest.fixture
def folder_of(tmp_path: Path) -> FolderOf:
    """`folder_of(task)`: a data folder with hand-made rows of that task in its first folder name."""
    return lambda task: write_splits(tmp_path / "data", task)


@pytest.fixture(scope="session")
def hand_made() -> RowsOf:
    """`hand_made(task, size)`: rows in the column schema of the task's data set."""
    return rows_of


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained BERT with its tokenizer."""
    from checkpoints import write_bert

    return write_bert(tmp_path_factory.mktemp("checkpoints") / "tiny-bert")


@pytest.fixture(scope="session")
def fsmt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FSMT with its tokenizer."""
    from checkpoints import write_fsmt

    return write_fsmt(tmp_path_factory.mktemp("checkpoints") / "tiny-fsmt")


@pytest.fixture(scope="session")
def bart_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained BART with its tokenizer."""
    from checkpoints import write_bart

    return write_bart(tmp_path_factory.mktemp("checkpoints") / "tiny-bart")


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained GPT-2; its tokenizer has no padding token, as on the hub."""
    from checkpoints import write_gpt2

    return write_gpt2(tmp_path_factory.mktemp("checkpoints") / "tiny-gpt2")
