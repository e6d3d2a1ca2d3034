"""Encoded features, cached by everything that they depend on."""

import contextlib
import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from repro.data.tokenizers import cache_folder
from repro.provenance import fingerprint_files, fingerprint_text
from repro.tasks import base
from repro.tasks.base import Feature, Row, Task

TASK_SOURCES = Path(base.__file__).parent
"""The code that encodes."""
_LIBRARIES = ("transformers", "tokenizers", "sacremoses")
_compact = json.JSONEncoder(separators=(",", ":")).encode


def cached_features(task: Task, rows: list[Row], fingerprint: str) -> list[Feature]:
    """Return `task.encode(rows)`, read from the cache if it was encoded on this machine before.

    The cache saves time and nothing else: where it cannot be read or written, the rows are encoded.

    Args:
        fingerprint: of the rows, as `rows_fingerprint` gives it.
    """
    path = cache_folder() / "features" / f"{_fingerprint(task, fingerprint)}.jsonl"
    features = _read(path)
    if features is None:
        features = task.encode(rows)
        _write(path, features)
        _forget_truncation(task.tokenizer)
    return features


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
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        return fingerprint_files(path for path in Path(scratch).iterdir() if path.is_file())


def _forget_truncation(tokenizer: PreTrainedTokenizerBase) -> None:
    """Reset the truncation of a Rust tokenizer: that of its last call, which it saves but never uses again.

    Without this, the files of a trained model would depend on whether its features were cached.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()


def _read(path: Path) -> list[Feature] | None:
    """Read the features of a file; None if there is none, or if it is broken."""
    try:
        with path.open(encoding="utf-8") as stream:
            *features, count = map(json.loads, stream)
    except (OSError, ValueError):
        return None
    return features if count == len(features) else None


def _write(path: Path, features: list[Feature]) -> None:
    """Write one line a feature, and last their number, which a file that was cut short does not have."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            new = Path(scratch) / path.name
            with new.open("w", encoding="utf-8") as stream:
                stream.writelines(f"{_compact(feature)}\n" for feature in features)
                stream.write(f"{len(features)}\n")
            new.replace(path)
