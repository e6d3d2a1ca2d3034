"""A finished run opened again: its configuration, model, task and the rows of a split."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from accelerate import Accelerator

from repro import plugins, saved
from repro._prepare import make_accelerator
from repro.config import RunConfig, from_dict
from repro.errors import UserError
from repro.records import RunFolder, read_json
from repro.tasks._base import Row, Task
from repro.tasks._data import load_rows
from repro.tasks._tokenizer import pretrained_tokenizer


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What is needed to run a trained model once more."""

    config: RunConfig
    module: ModuleType
    """The task's own module."""
    task: Task
    rows: list[Row]
    source: str
    """Where the rows are from, as in `DataConfig.source`."""
    accelerator: Accelerator
    model: Any


def finished_config(folder: RunFolder) -> RunConfig:
    """The configuration of a finished run.

    Raises:
        UserError: the run is not finished, or its configuration cannot be read.
    """
    if not folder.result.exists():
        raise UserError(f"{folder.path}: not a finished run (no result.json)")
    return from_dict(read_json(folder.config), lambda key: f"{folder.config}: ")


def open_finished(folder: RunFolder, config: RunConfig, split: str, data: Path | None) -> FinishedRun:
    """Load rows, tokenizer and model.

    Args:
        data: a data folder; None takes the one the run was trained on.

    Raises:
        UserError: the data or the model are not there.
    """
    source, place = config.data.source, data
    if data is not None:
        source = "folder:given"
    elif source.startswith("folder:"):
        place = Path(read_json(folder.places)["data"])
    accelerator = make_accelerator(config, folder.model)
    module = plugins.load("tasks", config.task)
    limit = config.data.train_samples if split == "train" else config.data.validation_samples
    rows = load_rows(module, source, place, split, limit)
    task = module.Task(config.task_options, pretrained_tokenizer(folder.model), config.data.max_length)
    model = accelerator.prepare_model(
        saved.load(folder.model, accelerator.device, config.experts.backend), evaluation_mode=True
    )
    return FinishedRun(
        config=config,
        module=module,
        task=task,
        rows=rows,
        source=source,
        accelerator=accelerator,
        model=model,
    )
