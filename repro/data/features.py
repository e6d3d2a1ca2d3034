"""Encoded features, cached by everything that they depend on."""

import json
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydantic_core import from_json
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from repro.data.cache import read_entry, scratch_folder, write_entry
from repro.errors import notice
from repro.provenance import fingerprint_files, fingerprint_text
from repro.tasks import base
from repro.tasks.base import Feature, Row, Task, TaskModule

TASK_SOURCES = Path(base.__file__).parent
"""The code that encodes."""
_FILE = "features.jsonl"
_LIBRARIES = ("transformers", "tokenizers", "sacremoses")
_compact = json.JSONEncoder(separators=(",", ":")).encode


def cached_features(task: Task, rows: list[Row], fingerprint: str) -> list[Feature]:
    """Return `task.encode(rows)`, read from the cache if it was encoded on this machine before.

    Args:
        fingerprint: of the rows, as `rows_fingerprint` gives it.
    """
    key = _fingerprint(task, fingerprint)
    features = read_entry("features", key, _read)
    if features is None:
        features = task.encode(rows)
        write_entry("features", key, partial(_write, features))
        _forget_truncation(task.tokenizer)
    return features


def report_special_tokens(
    module: TaskModule, rows: list[Row], split: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Tell in how many rows of a split a special token of the tokenizer stands, as text."""
    tokens = tokenizer.all_special_tokens
    found = [
        next((token for text in module.texts(row) for token in tokens if token in text), None) for row in rows
    ]
    names = dict.fromkeys(filter(None, found))
    if names:
        notice(
            f"data: {len(found) - found.count(None)} rows of {split!r} contain special tokens"
            f" ({', '.join(names)}) as text; they are encoded as plain text"
        )


def _fingerprint(task: Task, rows_fingerprint: str) -> str:
    """Fingerprint all that features depend on: rows, options, tokenizer, versions, code of the tasks."""
    return fingerprint_text(
        [
            rows_fingerprint,
            type(task).__module__,
            repr(task.config),
            str(task.max_length),
            _tokenizer_fingerprint(task.tokenizer),
            fingerprint_files(sorted(TASK_SOURCES.rglob("*.py"))),
            platform.python_version(),
            *map(version, _LIBRARIES),
        ]
    )


def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint the files that `save_pretrained` writes; every tokenizer has it, in Rust or not."""
    _forget_truncation(tokenizer)
    with scratch_folder() as scratch:
        tokenizer.save_pretrained(scratch)
        return fingerprint_files(path for path in scratch.iterdir() if path.is_file())


def _forget_truncation(tokenizer: PreTrainedTokenizerBase) -> None:
    """Reset the truncation of a Rust tokenizer: that of its last call, which it saves but never uses again.

    Without this, the files of a trained model would depend on whether its features were cached.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()


def _read(folder: Path) -> list[Feature]:
    with (folder / _FILE).open("rb") as stream:
        return [*map(from_json, stream)]


def _write(features: list[Feature], folder: Path) -> None:
    """Write one line a feature."""
    with (folder / _FILE).open("w", encoding="utf-8") as stream:
        stream.writelines(f"{_compact(feature)}\n" for feature in features)
