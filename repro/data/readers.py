"""Rows of a file of a data folder, or of a split of the hub, one by one.

A reader is called once to check all rows and, where only some are used, once more for these: a data set of
millions of rows is never in memory as a whole. Rows are numbered from 1.
"""

import csv
import gzip
import re
import resource
import zlib
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from repro.errors import UserError, named_line, one_line
from repro.moe import hub
from repro.tasks.base import Row

MAX_LINE = 64 * 2**20
"""Bytes of the longest line, cell or Parquet row: a file of kilobytes may hold one that no memory holds.

The longest articles and books of published corpora have a few megabytes.
"""
_MAX_GROUP = 4 * 2**30
"""Bytes of a row group of Parquet, as it says of itself."""
_MAX_BATCH = 2 * 2**30
"""Bytes that Arrow may take to unpack a batch: kilobytes may hold a text once for a thousand rows."""
_MAX_COLUMNS = 10_000
_BATCH = 1000
"""Rows that are taken from Arrow at a time."""
_BOM = b"\xef\xbb\xbf"
"""What editors on Windows put before UTF-8."""
_LONE_SURROGATE = re.compile(r"surrogate|hex escape")
"""In what the JSON parser says of half a surrogate pair."""
_WHOLE = re.compile(r"-?\d{1,18}|")
"""A cell of a CSV column of whole numbers; one may be empty."""


class Reader(Protocol):
    """What reads the rows of one split."""

    def __call__(self, wanted: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
        """Yield the wanted rows with their numbers; None wants all.

        Raises:
            UserError: with file and line, what is broken.
        """


def file_reader(path: Path) -> Reader:
    """Return what reads a file, by its suffix: `.jsonl`, `.jsonl.gz`, `.parquet` or `.csv`."""
    if path.suffix == ".parquet":
        return partial(_parquet_rows, path)
    return _Csv(path) if path.suffix == ".csv" else partial(_json_rows, path)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines with their ends, without reading one that is too long."""
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as stream:
            while line := stream.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise UserError(f"{path}: line {number + 1}: longer than {MAX_LINE >> 20} MiB")
                yield line if number else line.removeprefix(_BOM)
                number += 1
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read after line {number} ({one_line(error)})") from error


def _json_rows(path: Path, wanted: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(_lines(path), 1):
        if wanted is None or number in wanted:
            try:
                yield number, from_json(line.rstrip())
            except ValueError as error:
                raise UserError(f"{path}: line {number}: {_not_json(line, error)}") from error


def _not_json(line: bytes, error: ValueError) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 (byte {wrong.start})"
    reason = str(error).replace(" line 1", "")
    if _LONE_SURROGATE.search(reason):
        reason = f"half of a surrogate pair, as \\ud83d, is no character: {reason}"
    return f"not JSON ({reason})"


class _Csv:
    """The rows of a CSV file; a column of whole numbers gives int, everything else text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = 0
        """Bytes of the row that is being read."""

    def __call__(self, wanted: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
        """Yield the wanted rows with their numbers; None wants all."""
        names, whole = self._columns
        for number, cells in enumerate(self._rows(len(names)), 1):
            if wanted is None or number in wanted:
                row: Row = dict(zip(names, cells, strict=True))
                yield number, row | {name: int(row[name]) for name in whole if row[name]}

    @cached_property
    def _columns(self) -> tuple[list[str], list[str]]:
        """All columns, and those that hold whole numbers alone; one without a name gets that of pandas."""
        line, cells = next(self._records(), (1, []))
        if not cells:
            raise UserError(f"{self._path}: no header, which names the columns")
        names = [name or f"Unnamed: {number}" for number, name in enumerate(cells[: _MAX_COLUMNS + 1])]
        _check_names(names, f"{self._path}: line {line}")
        whole = dict(enumerate(names))
        for cells in self._rows(len(names)):
            for place in [place for place in whole if not _WHOLE.fullmatch(cells[place])]:
                del whole[place]
        return names, list(whole.values())

    def _rows(self, width: int) -> Iterator[list[str]]:
        """Yield the cells of each row, as many as the header has."""
        records = self._records()
        next(records)
        for line, cells in records:
            if len(cells) == width:
                yield cells
            elif cells != [""] and any(map(str.strip, cells)):  # otherwise a blank line
                raise UserError(
                    f"{self._path}: line {line}: the header has {width} fields, this row {len(cells)};"
                    " a field with commas stands in quotes"
                )

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the fields of each record, with the line that it begins on; empty lines are left out."""
        csv.field_size_limit(MAX_LINE)
        reader = csv.reader(self._texts(), strict=True)
        line, self._taken = 1, 0
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
                self._taken = 0
        except csv.Error as error:
            raise UserError(f"{self._path}: line {line}: not CSV ({one_line(error)})") from error

    def _texts(self) -> Iterator[str]:
        """Yield lines with their ends, which may be those of any system."""
        pieces = (piece for line in _lines(self._path) for piece in line.splitlines(keepends=True))
        for number, piece in enumerate(pieces, 1):
            self._taken += len(piece)
            if self._taken > MAX_LINE:  # after a quote that is never closed
                raise csv.Error(f"a row longer than {MAX_LINE >> 20} MiB")
            try:
                yield piece.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{self._path}: line {number}: not UTF-8 (byte {error.start})") from error


def _check_names(names: list[str], place: str) -> None:
    """Refuse columns of which two have one name, or that are too many."""
    if len(names) > _MAX_COLUMNS:
        raise UserError(f"{place}: more than {_MAX_COLUMNS} columns")
    twins = [name for number, name in enumerate(names) if name in names[:number]]
    if twins:
        raise UserError(f"{place}: two columns are called {twins[0][:80]!r}")


def _parquet_rows(path: Path, wanted: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            _check_names(file.schema_arrow.names, str(path))
            _check_sizes(file.metadata, path)
            batches = _unpacked(file.iter_batches(batch_size=_BATCH))
            yield from _arrow_rows(batches, wanted, str(path))
    except UserError:
        raise
    except MemoryError as error:
        problem = f"its rows take more than {_MAX_BATCH >> 20} MiB, or there is no memory"
        raise UserError(f"{path}: {problem} ({one_line(error)})") from error
    except Exception as error:  # Arrow raises dozens of types for damaged files
        raise UserError(f"{path}: not a Parquet file ({one_line(error)})") from error


def _unpacked(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches, each unpacked within a limit of memory.

    Raises:
        MemoryError: one does not fit.
    """
    iterator = iter(batches)
    while True:
        with _memory_limit(_MAX_BATCH):
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _memory_limit(more: int) -> Iterator[None]:
    """Let this process allocate so many bytes more at most, where the system counts them (Linux)."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        yield
        return
    used = int(statistics.read_text().split()[5]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (used + more, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _check_sizes(metadata: Any, path: Path) -> None:
    """Refuse, by what the file says of itself, what would be unpacked into too much memory.

    It is not asked for a column of a row group: if that is damaged, Arrow ends the process.
    """
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        size = group.total_byte_size
        if size > min(_MAX_GROUP, MAX_LINE * (group.num_rows + 1)):  # one for the heads of pages
            raise UserError(
                f"{path}: a row group of {group.num_rows} rows and {size >> 20} MiB;"
                f" at most {MAX_LINE >> 20} MiB a row and {_MAX_GROUP >> 20} MiB a row group"
            )


def _arrow_rows(
    batches: Iterable[Any], wanted: Container[int] | None, place: str
) -> Iterator[tuple[int, Row]]:
    """Yield the wanted rows of tables or record batches that follow each other."""
    first = 1
    for batch in batches:
        if wanted is None:
            _check_batch(batch, first, place)
            yield from enumerate(batch.to_pylist(), first)
        elif chosen := [index for index in range(len(batch)) if first + index in wanted]:
            rows = batch.take(chosen).to_pylist()
            yield from ((first + index, row) for index, row in zip(chosen, rows, strict=True))
        first += len(batch)


def _check_batch(batch: Any, first: int, place: str) -> None:
    """Refuse a row that is too large, before it is a Python object."""
    if batch.nbytes > MAX_LINE:
        for index in range(len(batch)):
            if batch.slice(index, 1).nbytes > MAX_LINE:
                raise UserError(f"{place}: row {first + index}: larger than {MAX_LINE >> 20} MiB")


def hub_reader(name: str, configuration: str | None, split: str) -> Reader:
    """Return what reads a split of a data set of the hub, or of a folder in its layout.

    Raises:
        UserError: it cannot be loaded.
    """
    import datasets

    def refuse(error: Exception) -> UserError:
        return UserError(
            f"--data hub: cannot load {name} {split} ({named_line(error)})."
            " Give a folder with --data DIR, or --data synthetic."
        )

    try:
        with hub.only_if_it_answers():
            dataset = datasets.load_dataset(name, configuration, split=split).with_format("arrow")
    except Exception as error:  # the hub's client raises dozens of types, of several libraries
        raise refuse(error) from error

    def rows(wanted: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
        try:
            yield from _arrow_rows(dataset.iter(batch_size=_BATCH), wanted, f"{name} {split}")
        except UserError:
            raise
        except Exception as error:  # as above
            raise refuse(error) from error

    return rows
