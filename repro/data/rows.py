"""Rows of a task's splits, from the synthetic corpora, a data folder or the hub."""

import gzip
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

from repro.data.corpora import base as corpora
from repro.errors import UserError, one_line
from repro.provenance import fingerprint_digests, fingerprint_files, text_digests
from repro.tasks.base import Row, TaskModule

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv")
_SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}


def folder_fingerprint(folder: Path, task: TaskModule) -> str:
    """Compute the fingerprint of the task's files in a data folder; it names the data wherever they lie.

    Raises:
        UserError: the folder, or a split that training needs, is missing.
    """
    return fingerprint_files([_split_file(folder, task, name) for name in ("train", "validation")])


def rows_fingerprint(rows: list[Row]) -> str:
    """Compute the fingerprint of rows that have no file of ours: synthetic ones, or those of the hub."""
    return fingerprint_digests(rows_digests(rows))


def rows_digests(rows: list[Row]) -> bytes:
    """Compute the digests that `rows_fingerprint` is over; those of several splits can be joined."""
    return text_digests(json.dumps(row, sort_keys=True, default=str) for row in rows)


def load_rows(task: TaskModule, source: str, folder: Path | None, split: str, limit: int | None) -> list[Row]:
    """Read and check the rows of a split.

    Args:
        source: `synthetic`, `hub` or `folder:...`, as in `DataConfig.source`.
        folder: where the data lie, for a folder source.
        limit: at most this many: a fixed random choice in the order of the data, or the beginning
            of running text.

    Raises:
        UserError: in one line, with file and line number: what is missing or broken.
    """
    if source == "synthetic":
        rows = corpora.load(task.CORPUS).generate(limit or 1000, _SPLIT_SEEDS[split])
        numbered = enumerate(rows, 1)
        origin = f"corpus {task.CORPUS}"
    elif source == "hub":
        origin, numbered = f"{task.HUB[0]} {split}", enumerate(_read_hub(task, split), 1)
    else:
        assert folder is not None, "a folder source comes with its folder"
        path = _split_file(folder, task, split)
        origin, numbered = str(path), enumerate(_read_file(path), 1)
    checked = [_checked(task, row, f"{origin}: row {number}") for number, row in numbered]
    if not checked:
        raise UserError(f"{origin}: the split is empty")
    if limit is not None and limit < len(checked) and task.CONTIGUOUS:
        checked = checked[:limit]
    elif limit is not None and limit < len(checked):
        chosen = sorted(random.Random(0).sample(range(len(checked)), limit))
        checked = [checked[index] for index in chosen]
    return checked


def _checked(task: TaskModule, row: Row, place: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected a JSON object with {', '.join(task.COLUMNS)}")
    missing = [column for column in task.COLUMNS if column not in row]
    if missing:
        raise UserError(f"{place}: no column {missing[0]!r}; it has {', '.join(row) or 'none'}")
    problem = task.problem(row)
    if problem:
        raise UserError(f"{place}: {problem}")
    return row


def _split_file(folder: Path, task: TaskModule, split: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder. Give a folder, 'synthetic' or 'hub'.")
    places = [folder / name for name in task.FOLDERS if (folder / name).is_dir()]
    if not places:
        present = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        expected = " or ".join(map(repr, task.FOLDERS))
        raise UserError(f"--data {folder}: no folder {expected} in it; it has: {present or 'none'}")
    for suffix in SUFFIXES:
        path = places[0] / f"{split}{suffix}"
        if path.is_file():
            return path
    raise UserError(f"{places[0]}: no split {split!r} ({split}{f', {split}'.join(SUFFIXES)})")


def _read_file(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
    elif path.suffix == ".csv":
        yield from _read_csv(path)
    else:
        yield from _read_jsonl(path)


def _read_jsonl(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as stream:
            for number, line in enumerate(stream, 1):  # noqa: B007 (named in the messages)
                yield json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: line {number}: not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {number}: not JSON ({error.msg})") from error
    except ValueError as error:
        raise UserError(f"{path}: line {number}: not JSON ({one_line(error)})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read after line {number} ({one_line(error)})") from error


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: not a Parquet file ({one_line(error)})") from error
    yield from table.to_pylist()


def _read_csv(path: Path) -> Iterator[Row]:
    import pandas

    try:
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a CSV file ({one_line(error)})") from error
    # A column of whole numbers is one even if a cell is empty; that cell stays empty text.
    numeric = {name for name in frame if frame[name].str.fullmatch(r"-?\d{1,18}|").all()}
    for row in frame.to_dict("records"):
        yield {str(name): int(cell) if name in numeric and cell else cell for name, cell in row.items()}


def _read_hub(task: TaskModule, split: str) -> Iterator[Row]:
    import datasets

    name, configuration = task.HUB
    try:
        yield from datasets.load_dataset(name, configuration, split=split)
    except Exception as error:  # the hub's client raises dozens of types, of several libraries
        reason = one_line(error)
        raise UserError(
            f"--data hub: cannot load {name} {split} ({type(error).__name__}: {reason})."
            " Give a folder with --data DIR, or --data synthetic."
        ) from error
