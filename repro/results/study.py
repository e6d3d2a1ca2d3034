"""`studies/<study>.json`: which runs stand for which rows of a study's table."""

from typing import Annotated

from pydantic import Field

from repro.checks import PlainName
from repro.results.base import Record, TaskName

Variant = Annotated[str, Field(pattern=r"\S")]
"""The label of a row; any text that is not blank."""


class Study(Record):
    """The runs that a study compares, and why some are missing."""

    study: PlainName
    """Its name: a file in `experiments/studies/`."""
    tasks: dict[TaskName, dict[Variant, list[PlainName]]] = Field(default_factory=dict)
    """Task -> variant -> run ids, one for each seed."""
    failed: dict[str, str] = Field(default_factory=dict)
    """Run id -> reason."""
    commands: dict[str, str] = Field(default_factory=dict)
    """Run id -> the command that asked for it, without places of a machine; older studies have none."""
