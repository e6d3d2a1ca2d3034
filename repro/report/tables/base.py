"""Contract of the tables: rows derived from what a scale has published, and from nothing else.

A file `report/tables/<name>.py` is a table: its module satisfies `Table`, or `ShownTable` if the report or
the command line prints it. The first line of its docstring is the title and the text of its section.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, cast, runtime_checkable

from repro import plugins
from repro.results.published import Published

Cell: TypeAlias = str | int | float | None
"""A value of a table; None is an empty cell: what was not measured is never 0."""
Row: TypeAlias = Mapping[str, Cell]
"""Column -> cell, in the order of the columns."""


@runtime_checkable
class Table(Protocol):
    """A table with a CSV file."""

    @property
    def FILE(self) -> str:
        """Name of its file."""

    @property
    def COLUMNS(self) -> Sequence[str]:
        """Header of its file."""

    def rows(self, published: Published) -> list[Row]:
        """Derive the rows of the file; none where nothing was measured that they need."""


@runtime_checkable
class ShownTable(Table, Protocol):
    """A table that the report shows, and the command line after a study."""

    def shown(self, published: Published) -> list[Row]:
        """Derive the rows for reading: few columns, the paper's values beside ours."""

    def notes(self, published: Published) -> list[str]:
        """Say in one line each what must be known about the rows, such as why a cell is empty."""


def load(name: str) -> Table:
    """Load a table by name.

    Raises:
        UserError: there is no such table.
    """
    return cast(Table, plugins.load("tables", name))


def load_shown(name: str) -> ShownTable:
    """Load one of the tables that are shown.

    Raises:
        UserError: there is no such table.
    """
    return cast(ShownTable, plugins.load("tables", name))
