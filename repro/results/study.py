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

    @property
    def run_ids(self) -> set[str]:
        """Ids of all runs that it compares."""
        return {
            run_id for variants in self.tasks.values() for run_ids in variants.values() for run_id in run_ids
        }

    def over(self, other: "Study") -> "Study":
        """Lay these tasks over those of another record; what is known of runs no longer compared goes."""
        tasks = other.tasks | self.tasks
        listed = Study(study=self.study, tasks=tasks).run_ids
        failed, commands = other.failed | self.failed, other.commands | self.commands
        return Study(
            study=self.study,
            tasks=tasks,
            failed={run_id: reason for run_id, reason in failed.items() if run_id in listed},
            commands={run_id: command for run_id, command in commands.items() if run_id in listed},
        )
