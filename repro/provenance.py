"""Where a number comes from: versions of libraries, state of the code, fingerprints of the inputs."""

import hashlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

_PACKAGE = Path(__file__).parent
_PACKAGES = (
    "repro",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "evaluate",
    "tokenizers",
    "numpy",
)


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Return 16 hex digits over names and contents of files: equal data, equal value, on any machine."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(path.name.encode() + bytes.fromhex(digest_of(path)))
    return digest.hexdigest()[:16]


def digest_of(path: Path, size: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first `size` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in _blocks(stream, size):
            digest.update(block)
    return digest.hexdigest()


def _blocks(stream: BinaryIO, size: int | None) -> Iterator[bytes]:
    left = size
    while left is None or left > 0:
        block = stream.read(2**20 if left is None else min(2**20, left))
        if not block:
            return
        left = None if left is None else left - len(block)
        yield block


def fingerprint_text(texts: Iterable[str]) -> str:
    """Return 16 hex digits over a sequence of strings."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:16]


def package_versions() -> dict[str, str | None]:
    """Return the versions of the libraries that decide numbers; None for one that is not installed."""
    return {name: _package_version(name) for name in _PACKAGES}


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit(package: Path = _PACKAGE) -> str | None:
    """Return the commit of the code; None outside a repository."""
    return _git(package, "rev-parse", "HEAD")


def git_modified(package: Path = _PACKAGE) -> bool | None:
    """Tell whether the package or `experiments/` differ from that commit; None outside a repository."""
    folders = (str(package), str(package.parent / "experiments"))
    status = _git(package, "status", "--porcelain", "--untracked-files=no", "--", *folders)
    return bool(status) if status is not None else None


def changed_since(commit: str | None, modified: bool | None, packages: Mapping[str, str | None]) -> list[str]:
    """Say what differs between a result's code and libraries and those here; nothing if all are equal.

    Args:
        commit, modified, packages: the result's, as `git_commit`, `git_modified` and `package_versions` gave
            them.
    """
    changes = []
    here, modified_here, installed = _code_here()
    if commit and here and commit != here:
        changes.append(f"commit {commit[:8]}, here {here[:8]}")
    elif bool(modified) != bool(modified_here):
        changes.append("files changed since the commit, not here" if modified else "files changed here")
    changes += [
        f"{name} {version}, here {installed[name]}"
        for name, version in packages.items()
        if name in installed and name != "repro" and version != installed[name]
    ]
    return changes


@cache
def _code_here() -> tuple[str | None, bool | None, dict[str, str | None]]:
    """Return commit, changes and libraries of this process, which asks git once and not for every result."""
    return git_commit(), git_modified(), package_versions()


def _git(package: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=package,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
