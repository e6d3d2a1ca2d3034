"""Open a finished run again: its configuration, model, task and the rows of a split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from repro.config import RunConfig, from_dict
from repro.data.features import report_special_tokens
from repro.data.rows import load_rows, load_training
from repro.data.tokenizers import pretrained_tokenizer
from repro.errors import UserError
from repro.moe import pretrained
from repro.provenance import digest_of
from repro.results.files import InputPaths, ModelFiles, RunFolder, read_json
from repro.results.run import read_result
from repro.run.accelerator import make_accelerator
from repro.tasks.base import Row, Task, TaskModule
from repro.tasks.base import load as load_task


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A trained model with what it needs to run once more."""

    config: RunConfig
    module: TaskModule
    task: Task
    rows: list[Row]
    source: str
    """Where the rows are from, as in `DataConfig.source`."""
    accelerator: Accelerator
    model: Any


def finished_config(folder: RunFolder) -> RunConfig:
    """Read the configuration of a finished run.

    Raises:
        UserError: the run is not finished, or its configuration cannot be read, or is not that of its result.
    """
    if not folder.result.exists():
        raise UserError(f"{folder.path}: not a finished run (no result.json)")
    plain = read_json(folder.config)
    config = from_dict(plain, lambda key: f"{folder.config}: ")
    if plain != read_result(folder.result).config:
        raise UserError(f"{folder.config}: not the configuration in result.json; train the run with --fresh")
    return config


def open_finished(folder: RunFolder, config: RunConfig, split: str, data: Path | None) -> FinishedRun:
    """Load rows, tokenizer and model.

    Args:
        split: `train` or `dev` as the run had them, `validation`, or `test`: as many rows as of `validation`.
        data: a data folder; None takes the one the run was trained on.

    Raises:
        UserError: the data or the model are not there.
    """
    source, data_folder = config.data.source, data
    if data is not None:
        source = "folder:given"
    elif source.startswith("folder:"):
        data_folder = _data_folder(folder)
    accelerator = make_accelerator(config, folder.model)
    module = load_task(config.task)
    rows = rows_of(config, source, data_folder, split)
    task = module.Task(config.task_options, pretrained_tokenizer(folder.model), config.data.max_length)
    report_special_tokens(module, rows, split, task.tokenizer)
    model = accelerator.prepare_model(
        pretrained.load(folder.model, accelerator.device, config.experts.backend), evaluation_mode=True
    )
    check_model(folder)
    return FinishedRun(
        config=config,
        module=module,
        task=task,
        rows=rows,
        source=source,
        accelerator=accelerator,
        model=model,
    )


def rows_of(config: RunConfig, source: str, folder: Path | None, split: str) -> list[Row]:
    """Read the rows of a split, as many as a run of this configuration does; of `test` as of `validation`.

    Args:
        source: as in `DataConfig.source`.
        folder: of the data, if they are in one.

    Raises:
        UserError: they are not there, or broken.
    """
    module, limits = load_task(config.task), config.data
    if split in ("train", "dev"):
        parts = load_training(
            module, config.task_options, source, folder, limits.train_samples, limits.dev_samples
        )
        return parts[split].rows
    return load_rows(module, source, folder, split, limits.validation_samples).rows


def check_model(folder: RunFolder) -> None:
    """Compare the saved model with what was saved: a bit more or less in a weight gives other numbers.

    Raises:
        UserError: a file is missing or altered. A run that does not say what it saved is not compared.
    """
    if not folder.model_files.exists():
        return
    try:
        for name, digest in ModelFiles.read(folder.model_files).files.items():
            path = folder.model / Path(name).name
            if digest_of(path) != digest:
                raise UserError(f"{path}: not what was saved; restore it, or train the run with --fresh")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); restore it") from error


def _data_folder(folder: RunFolder) -> Path:
    """Return the data folder that a run was trained on.

    Raises:
        UserError: the run does not say where it was.
    """
    data = InputPaths.read(folder.paths).data
    if data is None:
        raise UserError(f"{folder.paths}: names no data folder; give one with --data")
    return Path(data)
