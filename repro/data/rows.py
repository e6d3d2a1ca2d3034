"""Rows of a task's splits, from the synthetic corpora, a data folder or the hub."""

import itertools
import json
import random
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from repro.data.corpora import base as corpora
from repro.data.corpora.shared.splits import SPLITS
from repro.data.dev import dev_cut, numbers_of
from repro.data.readers import Reader, file_reader, hub_reader
from repro.errors import UserError, notice
from repro.provenance import fingerprint_files, fingerprint_text
from repro.tasks.base import Gap, Row, TaskModule

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv")
MAX_SHARE_OF_GAPS = 0.05
"""Share of the rows of a split that may lack a text; more of them are a fault of the data."""
_GENERATED = 1000
"""Rows of a split of a corpus that is generated, where no limit says how many."""


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """Rows of a split."""

    rows: list[Row]
    skipped: int
    """Further rows of it that lack a text, and were left out."""


def folder_fingerprint(folder: Path, task: TaskModule) -> str:
    """Compute the fingerprint of the task's files in a data folder; it names the data wherever they lie.

    Raises:
        UserError: the folder, or a split that training needs, is missing or cannot be read.
    """
    files = [_split_file(folder, task, name) for name in ("train", "validation")]
    try:
        return fingerprint_files(files)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def rows_fingerprint(rows: list[Row]) -> str:
    """Compute the fingerprint of rows that have no file of ours: synthetic ones, or those of the hub."""
    return fingerprint_text(json.dumps(row, sort_keys=True, default=str) for row in rows)


def load_rows(task: TaskModule, source: str, folder: Path | None, split: str, limit: int | None) -> SplitRows:
    """Read and check the rows of a split: of `train`, what `load_training` shares out.

    Args:
        source: `synthetic`, `hub` or `folder:...`, as in `DataConfig.source`.
        folder: where the data lie, for a folder source.
        limit: at most this many: a fixed random choice in the order of the data, or the beginning
            of running text. No more are in memory.

    Raises:
        UserError: in one line, with file and line number: what is missing or broken.
    """
    origin, read = _source(task, source, folder, split, limit)
    rows: list[Row] = []
    count, gaps = 0, _Gaps(origin)
    for _, row in _checked(task, origin, read, gaps):
        count += 1
        if limit is None or count <= limit:
            rows.append(row)
    gaps.check(count)
    if limit is not None and limit < count and not task.CONTIGUOUS:
        rows.clear()
        rows += _chosen(origin, read, [*numbers_of(_indices(task, count, limit), gaps.numbers)])
    return SplitRows(rows=rows, skipped=len(gaps.numbers))


def load_training(
    task: TaskModule, options: object, source: str, folder: Path | None, limit: int | None, dev_samples: int
) -> dict[str, SplitRows]:
    """Read and check the training split, and cut the dev split from it: rows of `train` and of `dev`.

    The choice is the same whatever the limit, and the seed of a run has no part in it. A generated corpus
    makes both splits, from seeds of their own.

    Args:
        options: the `Config` of the task.
        source, folder: as for `load_rows`.
        limit: at most this many rows of `train`, as for `load_rows`.
        dev_samples: at most this many rows of `dev`: whole groups, as the task groups rows; at least one.

    Raises:
        UserError: as `load_rows`, or nothing is left to train on.
    """
    if source == "synthetic":  # as many as are wanted of each
        limits = {"train": limit, "dev": dev_samples}
        return {split: load_rows(task, source, folder, split, limits[split]) for split in limits}
    origin, read = _source(task, source, folder, "train", limit)
    count, gaps, cut = 0, _Gaps(origin), dev_cut(dev_samples, task.CONTIGUOUS)
    rows, again = itertools.tee(_checked(task, origin, read, gaps))
    for (number, _), group in zip(rows, task.groups((row for _, row in again), options), strict=True):
        count += 1
        cut.add(number, group)
    gaps.check(count)
    dev = cut.numbers()
    left = count - len(dev)
    if not left:
        raise UserError(
            f"{origin}: data.dev_samples = {dev_samples} leaves none of {count} rows to train on"
            " (rows that belong together are not parted); lower it, or give more data"
        )
    train = [*numbers_of(_indices(task, left, limit), sorted([*gaps.numbers, *dev]))]
    chosen = dict(zip(sorted([*train, *dev]), _chosen(origin, read, [*train, *dev]), strict=True))
    return {
        "train": SplitRows(rows=[chosen[number] for number in train], skipped=len(gaps.numbers)),
        "dev": SplitRows(rows=[chosen[number] for number in dev], skipped=0),
    }


def _checked(task: TaskModule, origin: str, read: Reader, gaps: "_Gaps") -> Iterator[tuple[int, Row]]:
    """Yield the rows that are whole, with their numbers; refuse wrong ones, count gaps."""
    for number, row in read():
        problem = _problem(task, row)
        if isinstance(problem, Gap):
            gaps.add(number, problem)
        elif problem:
            raise UserError(f"{origin}: row {number}: {problem}")
        else:
            yield number, row


def _indices(task: TaskModule, count: int, limit: int | None) -> list[int] | range:
    """Choose rows: all, the beginning of running text, or a fixed random choice, ascending."""
    if limit is None or limit >= count or task.CONTIGUOUS:
        return range(count if limit is None else min(limit, count))
    return sorted(random.Random(0).sample(range(count), limit))


def _chosen(origin: str, read: Reader, numbers: list[int]) -> list[Row]:
    """Read the rows that have these numbers, in the order of the data."""
    rows = [row for _, row in read(set(numbers))]
    if len(rows) != len(numbers):
        raise UserError(f"{origin}: changed while it was read")
    return rows


class _Gaps:
    """The rows of a split that are left out."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._first = ""
        self.numbers: list[int] = []
        """From 1, ascending."""

    def add(self, number: int, problem: str) -> None:
        """Count a row."""
        self._first = self._first or f"row {number}: {problem}"
        self.numbers.append(number)

    def check(self, others: int) -> None:
        """Refuse a split without rows, or with too many that are left out; tell of a few."""
        skipped, total = len(self.numbers), others + len(self.numbers)
        if not total:
            raise UserError(f"{self._origin}: the split is empty")
        if skipped > MAX_SHARE_OF_GAPS * total:
            raise UserError(
                f"{self._origin}: {self._first}; {skipped} of {total} rows lack a text,"
                f" and at most {MAX_SHARE_OF_GAPS:.0%} may"
            )
        if skipped:
            notice(f"{self._origin}: {skipped} of {total} rows are left out, the first for {self._first}")


def _source(
    task: TaskModule, source: str, folder: Path | None, split: str, limit: int | None
) -> tuple[str, Reader]:
    """Return the name of a split for messages, and what reads it."""
    if source == "synthetic":
        corpus = corpora.load(task.CORPUS).generate(limit or _GENERATED, SPLITS[split])

        def generated_rows(wanted: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
            return (pair for pair in enumerate(corpus, 1) if wanted is None or pair[0] in wanted)

        return f"corpus {task.CORPUS}", generated_rows
    if source == "hub":
        return f"{task.HUB[0]} {split}", hub_reader(*task.HUB, split)
    assert folder is not None, "a folder source comes with its folder"
    path = _split_file(folder, task, split)
    return str(path), file_reader(path)


def _problem(task: TaskModule, row: Row) -> str | None:
    if not isinstance(row, dict):
        return f"expected a JSON object with {', '.join(task.COLUMNS)}"
    missing = [column for column in task.COLUMNS if column not in row]
    if missing:
        return f"no column {missing[0]!r}; it has {_listed(list(row))}"
    return task.problem(row)


def _listed(names: list[str]) -> str:
    """List some names, each as it can be printed on one line."""
    return ", ".join(repr(name[:40])[1:-1] for name in names[:20]) or "none"


def _split_file(folder: Path, task: TaskModule, split: str) -> Path:
    try:
        return _find_split(folder, task, split)
    except OSError as error:  # no permission, or a name that is too long
        raise UserError(f"--data {folder}: cannot be read ({error.strerror})") from error


def _find_split(folder: Path, task: TaskModule, split: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder. Give a folder, 'synthetic' or 'hub'.")
    places = [folder / name for name in task.FOLDERS if (folder / name).is_dir()]
    if not places:
        present = _listed(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        expected = " or ".join(map(repr, task.FOLDERS))
        raise UserError(f"--data {folder}: no folder {expected} in it; it has: {present}")
    for suffix in SUFFIXES:
        path = places[0] / f"{split}{suffix}"
        if path.is_file():
            return path
    raise UserError(f"{places[0]}: no split {split!r} ({split}{f', {split}'.join(SUFFIXES)})")
