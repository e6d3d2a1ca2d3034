"""Where a number comes from: versions, processor, code state and fingerprints of the inputs."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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

_OPENMP = ("OMP_", "GOMP_")
"""What starts the names of the variables that decide how threads run."""


def fingerprint_files(paths: Iterable[Path]) -> str:
    """16 hex digits over names and contents of files: the same data gives the same value anywhere."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        with path.open("rb") as stream:
            digest.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def text_digests(texts: Iterable[str]) -> bytes:
    """32 bytes for each string; sequences that follow each other have theirs joined."""
    return b"".join(hashlib.sha256(text.encode()).digest() for text in texts)


def fingerprint_digests(digests: bytes) -> str:
    """16 hex digits over what `text_digests` gave."""
    return hashlib.sha256(digests).hexdigest()[:16]


def fingerprint_text(texts: Iterable[str]) -> str:
    """16 hex digits over a sequence of strings."""
    return fingerprint_digests(text_digests(texts))


def _package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def environment() -> dict[str, object]:
    """Versions, processor and code state of this process. Names no host, user or path."""
    status = _git("status", "--porcelain", "--untracked-files=no", "--", "repro", "experiments")
    return {
        "python": sys.version.split()[0],
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "openmp": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_OPENMP)},
        "packages": {name: _package_version(name) for name in _PACKAGES},
        "git_commit": _git("rev-parse", "HEAD"),
        "git_modified": bool(status) if status is not None else None,
    }


def code_state(environment: Mapping[str, Any]) -> str:
    """The commit of an `environment`, shortened; a plus sign says that files were changed since."""
    commit = environment.get("git_commit") or ""
    return commit[:8] + ("+" if environment.get("git_modified") else "")
