"""The manifest of a checkpoint: what it consists of, and whether that is still what was written."""

from pathlib import Path

from repro.errors import UserError
from repro.provenance import digest_of
from repro.results.base import Record
from repro.results.files import RunFolder

MANIFEST = "manifest.json"


class RecordsWritten(Record):
    """A record file of the run, as it was at a checkpoint."""

    size: int
    """Bytes."""
    sha256: str

    @staticmethod
    def of(path: Path) -> "RecordsWritten":
        """Describe a record file as it is now."""
        size = path.stat().st_size
        return RecordsWritten(size=size, sha256=digest_of(path, size))


class Manifest(Record):
    """`manifest.json`: what a checkpoint consists of."""

    step: int
    budget: str
    """Schedule and steps of the run (`Budget.name`)."""
    processes: int
    """Of the launch that wrote it."""
    files: dict[str, str]
    """File of the checkpoint -> SHA-256."""
    records: dict[str, RecordsWritten]
    """Record file of the run -> its beginning up to the step."""


def verified(checkpoint: Path, folder: RunFolder) -> Manifest:
    """Compare a checkpoint and the records before it with its manifest.

    Raises:
        UserError: something is missing, cut short or altered.
    """
    manifest = Manifest.read(checkpoint / MANIFEST)
    for name, digest in manifest.files.items():
        path = checkpoint / Path(name).name
        if not path.is_file():
            raise UserError(f"{name} is missing")
        if digest_of(path) != digest:
            raise UserError(f"{name} is not what was written")
    for path in records_of(folder):
        kept = manifest.records.get(path.name)
        if kept is None:
            continue
        if not path.is_file() or path.stat().st_size < kept.size:
            raise UserError(f"the records before it in {path.name} are cut short")
        if digest_of(path, kept.size) != kept.sha256:
            raise UserError(f"the records before it in {path.name} are not what was written")
    return manifest


def records_of(folder: RunFolder) -> tuple[Path, ...]:
    """Return where a run may have records that go back with it to a checkpoint."""
    return folder.steps, folder.evals, folder.routing, folder.exchanges
