"""What was made on this machine before: a folder of files for each entry, with a digest of each file.

The cache saves time and nothing else. An entry that is not what was written is made again; where nothing can
be written, one line says so.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic_core import from_json

from repro.errors import UserError, notice, one_line
from repro.provenance import digest_of

_MANIFEST = "manifest.json"
"""File of an entry: the others -> SHA-256."""
_SCRATCH = ".tmp-"
"""Beginning of the name of a folder that is being written."""
_DAY = 24 * 60 * 60.0
"""Seconds after which nobody writes to such a folder any more."""

T = TypeVar("T")


def cache_folder() -> Path:
    """Return `$REPRO_CACHE`, or `repro` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("REPRO_CACHE") or Path(home) / "repro")


def read_entry(kind: str, key: str, load: Callable[[Path], T]) -> T | None:
    """Return what `load` reads from the folder of an entry; None if there is none, or if it is damaged."""
    try:
        folder = cache_folder() / kind / key
        if from_json((folder / _MANIFEST).read_bytes()) == _digests(folder):
            return load(folder)
    except (OSError, ValueError, RuntimeError):  # the last: there is no home
        pass
    return None


def write_entry(kind: str, key: str, save: Callable[[Path], object]) -> None:
    """Make an entry of what `save` writes into an empty folder, in the place of a damaged one."""
    root: Path | None = None
    try:
        root = cache_folder()
        folder = root / kind / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=_SCRATCH, ignore_cleanup_errors=True
        ) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            save(new)
            (new / _MANIFEST).write_text(json.dumps(_digests(new)), encoding="utf-8")
            if folder.exists():
                folder.rename(Path(scratch) / "damaged")
            new.rename(folder)
    except Exception as error:  # what is written in Rust raises no subclass of it when a disk is full
        if getattr(error, "errno", None) in (errno.EEXIST, errno.ENOTEMPTY):
            return  # another process was faster
        reason = getattr(error, "strerror", None) or one_line(error)
        notice(
            f"{root or 'cache'}: cannot be written ({reason}), so what it would keep is made in each run;"
            " name another folder with REPRO_CACHE"
        )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for what is written only to be read again.

    Raises:
        UserError: there is no room.
    """
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except UserError:
        raise
    except Exception as error:  # as above
        raise UserError(
            f"temporary folder: cannot be written ({one_line(error)}); make room, or name another with TMPDIR"
        ) from error


def _digests(folder: Path) -> dict[str, str]:
    """Return SHA-256 of each file but the manifest."""
    return {path.name: digest_of(path) for path in sorted(folder.iterdir()) if path.name != _MANIFEST}


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote."""
    for path in folder.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(path, ignore_errors=True)
