"""Turn arguments of the command line into values, and quiet libraries before they are imported."""

import importlib.util
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from repro.errors import UserError, unknown

Results = Annotated[Path, typer.Option("--out", help="Folder of all results.", metavar="DIR")]
Source = Annotated[str | None, typer.Option(help="synthetic, hub, or a data folder.", metavar="SOURCE")]
Model = Annotated[str | None, typer.Option(help="Start from a pretrained model: a folder or a hub id.")]
Folder = Annotated[Path | None, typer.Option(help="Data folder, if not that of the run.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def run_folder(run: str, results: Path) -> Path:
    """Find the folder of a run, named by its id or its path.

    Raises:
        UserError: there is no such run.
    """
    if (Path(run) / "config.json").is_file():
        return Path(run)
    folders = {path.parent.name: path.parent for path in results.glob("*/runs/*/config.json")}
    if run not in folders:
        raise UserError(f"{results}: " + unknown("run", run, sorted(folders)))
    return folders[run]


def comma_separated(text: str) -> list[str]:
    """Split a list at its commas."""
    return [part for part in text.replace(" ", "").split(",") if part]


def numbers(option: str, text: str) -> list[float]:
    """Read a list of numbers separated by commas, each once.

    Raises:
        UserError: with every part that is no number.
    """
    values, problems = [], []
    for part in comma_separated(text):
        try:
            values.append(float(part))
        except ValueError:
            problems.append(f"{option}: expected numbers separated by commas, got {part!r}")
    if problems:
        raise UserError(*problems)
    return list(dict.fromkeys(values))


def settings_by_option(
    options: dict[str, tuple[str, Any]], settings: list[str] | None
) -> dict[str, tuple[str, Any]]:
    """Return the settings that the user gave: option as typed -> key and value.

    Args:
        options: option -> key, and its value or None.
        settings: the texts of `--set`.

    Raises:
        UserError: a key is given twice, or a text is not `key=value`.
    """
    chosen = {option: (key, value) for option, (key, value) in options.items() if value is not None}
    for text in settings or []:
        key, value = assignment(text)
        if key in (other for other, _ in chosen.values()):
            raise UserError(f"--set {text}: {key} is given twice")
        chosen[f"--set {key}"] = (key, value)
    return chosen


def assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` with a TOML value; what is not TOML is text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, e.g. training.learning_rate=1e-4")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except ValueError:  # also a whole number of more digits than Python reads
        return key, value


def require_tensorboard() -> None:
    """Refuse `--tensorboard` where its package is missing: it is an extra.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: not installed; pip install 'repro[tensorboard]'")


def quiet_libraries() -> None:
    """Turn off the progress bars and loggers of libraries; ours are enough."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
