"""`jobs/<name>/` of a scale: what is known of the jobs by which a cluster does studies."""

from typing import Annotated, Literal

from pydantic import Field

from repro.checks import PlainName
from repro.results.base import Record

Launcher = Literal["slurm", "processes"]
"""Who starts jobs: a Slurm cluster, or this machine as processes."""
JobId = Annotated[str, Field(pattern=r"^[0-9]{1,18}(_[0-9]{1,9})?$")]
"""Number of a job, with that of its task if it is one of an array; of `processes` that of a process."""


class Submission(Record):
    """`submission.json`: jobs that were submitted together, and what they work on."""

    launcher: Launcher
    """What they were submitted to."""
    host: str
    """Where the command was given."""
    jobs: list[JobId] = Field(min_length=1)
    """As the scheduler calls them."""
    runs: list[PlainName]
    """Ids of all runs of their studies, which they share."""


class Failure(Record):
    """`failed/<run id>.json`: why one of the jobs could not do a run."""

    reason: str
    """In a line."""
