"""Arguments of the command line as values, and what has to happen before libraries are imported."""

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
    """The folder of a run given by its id or its path."""
    if (Path(run) / "config.json").is_file():
        return Path(run)
    known = {path.parent.name: path.parent for path in results.glob("*/runs/*/config.json")}
    if run not in known:
        raise UserError(f"{results}: " + unknown("run", run, sorted(known)))
    return known[run]


def listed(text: str) -> list[str]:
    """The parts of a list separated by commas."""
    return [part for part in text.replace(" ", "").split(",") if part]


def numbers(option: str, text: str) -> list[float]:
    """The numbers of a list separated by commas, each once.

    Raises:
        UserError: with every part that is no number.
    """
    found, problems = [], []
    for part in listed(text):
        try:
            found.append(float(part))
        except ValueError:
            problems.append(f"{option}: expected numbers separated by commas, got {part!r}")
    if problems:
        raise UserError(*problems)
    return list(dict.fromkeys(found))


def given(options: dict[str, tuple[str, Any]], settings: list[str] | None) -> dict[str, tuple[str, Any]]:
    """The settings that the user gave: option as typed -> key and value."""
    found = {option: (key, value) for option, (key, value) in options.items() if value is not None}
    for text in settings or []:
        key, value = assignment(text)
        if key in (known for known, _ in found.values()):
            raise UserError(f"--set {text}: {key} is given twice")
        found[f"--set {key}"] = (key, value)
    return found


def assignment(text: str) -> tuple[str, Any]:
    """`key=value` with a TOML value; what is not TOML is text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, e.g. training.learning_rate=1e-4")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def require_tensorboard() -> None:
    """It is an extra.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: not installed; pip install 'repro[tensorboard]'")


def quiet_libraries() -> None:
    """Libraries report to their own progress bars and loggers; ours is enough."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
