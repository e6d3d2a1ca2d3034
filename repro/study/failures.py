"""What the jobs that share a study tell each other of runs that failed: a file for each, which all see."""

from pathlib import Path

from repro.errors import UserError
from repro.results.files import write_json
from repro.results.jobs import Failure


class Failures:
    """Why runs failed, for all jobs that were submitted together: none of them tries such a run again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, run_id: str, reason: str) -> None:
        """Tell that a run failed.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._file(run_id), Failure(reason=reason).to_json())
        except OSError as error:
            raise UserError(f"{self._file(run_id)}: cannot be written ({error.strerror})") from error

    def reason(self, run_id: str) -> str | None:
        """Return why a run failed; None if nobody said that it did.

        Raises:
            UserError: the file is damaged.
        """
        path = self._file(run_id)
        return Failure.read(path).reason if path.exists() else None

    def _file(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.json"
