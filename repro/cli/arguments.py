"""Turn arguments of the command line into values, and quiet libraries before they are imported."""

import importlib.util
import os
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from repro.checks import spelled
from repro.errors import UserError, unknown

_LONGEST_KEY = 200
_LONGEST_NAME, _LONGEST_PATH = 255, 3800
"""Bytes that file systems take; the names of a run's files, below the folder that is named, come on top."""


def check_place(option: str, place: str) -> None:
    """Refuse a text that no file system takes as a path.

    Args:
        option: what gave it, for the message.

    Raises:
        UserError: it is empty or too long, or has bytes that no name has.
    """
    problem = None
    try:
        parts = [len(part.encode()) for part in Path(place).parts]
        if not place:
            problem = "is empty"
        elif "\0" in place:
            problem = "has a NUL byte"
        elif max(parts, default=0) > _LONGEST_NAME:
            problem = f"has a name of {max(parts)} bytes; file systems take {_LONGEST_NAME}"
        elif sum(parts) + len(parts) > _LONGEST_PATH:
            problem = f"is longer than {_LONGEST_PATH} bytes"
    except UnicodeEncodeError:
        problem = "is not UTF-8"
    if problem is not None:
        raise UserError(f"{option} {spelled(place)}: {problem}")


def _checked_place(parameter: typer.CallbackParam, value: str | Path | None) -> str | Path | None:
    if value is not None:
        check_place(parameter.opts[0], str(value))
    return value


def place_option(*names: str, help: str, metavar: str | None = None) -> Any:
    """Make an option that takes a path."""
    return typer.Option(*names, help=help, metavar=metavar, callback=_checked_place)


Results = Annotated[Path, place_option("--out", help="Folder of all results.", metavar="DIR")]
Source = Annotated[str | None, place_option(help="synthetic, hub, or a data folder.", metavar="SOURCE")]
Model = Annotated[str | None, place_option(help="Start from a pretrained model: a folder or a hub id.")]
Folder = Annotated[Path | None, place_option(help="Data folder, if not that of the run.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def run_folder(run: str, results: Path) -> Path:
    """Find the folder of a run, named by its id or its path.

    Raises:
        UserError: there is no such run.
    """
    check_place("RUN", run)
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
            raise UserError(f"--set {spelled(text)}: {spelled(key)} is given twice")
        chosen[f"--set {spelled(key)}"] = (key, value)
    return chosen


def assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` with a TOML value; what is not one is text.

    Raises:
        UserError: it is not `key=value`, or not UTF-8.
    """
    key, equals, value = text.partition("=")
    if not equals or not 0 < len(key) <= _LONGEST_KEY:
        raise UserError(f"--set {spelled(text)}: expected KEY=VALUE, e.g. training.learning_rate=1e-4")
    try:
        text.encode()
        read = tomllib.loads(f"value = {value}")
    except UnicodeEncodeError as error:
        raise UserError(f"--set {spelled(text)}: is not UTF-8") from error
    except (ValueError, RecursionError):  # also a whole number of more digits than Python reads
        return key, value
    return key, read["value"] if len(read) == 1 else value


def repeatable(arguments: Sequence[str]) -> str:
    """Return a command as others can repeat it: what was typed, without places of this machine.

    `--out` is left out; a folder after `--data` or `--model` is `DIR`.
    """
    words = ["repro"]
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in ("--out", "--data", "--model"):
            words.append(word)
            continue
        place = value if equals else next(rest, "")
        if option != "--out":
            words += [option, "DIR" if Path(place).is_dir() else place]
    return shlex.join(words)


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
