"""`studies/<study>.json`: which runs stand for which rows of a study's table."""

from pydantic import Field

from repro.results.base import Record


class Study(Record):
    """The runs that a study compares, and why some are missing."""

    study: str
    tasks: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """Task -> variant -> run ids, one for each seed."""
    failed: dict[str, str] = Field(default_factory=dict)
    """Run id -> reason."""
