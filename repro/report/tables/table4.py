"""Table 4: the tokens most often sent to two experts, by task."""

from repro import paper
from repro.report.analyses import analyzed_tasks, items, top_words
from repro.report.schemes import title
from repro.report.tables.base import Row
from repro.results.analysis import Analysis
from repro.results.published import Published

FILE = "table4.csv"
COLUMNS = ("Task", "Top-2 gating tokens")
LISTED = 10
"""Words of a task."""


def rows(published: Published) -> list[Row]:
    """Derive the paper's columns. A cell is empty where no word is above the base rate in every run.

    It must also be so significantly, by a bootstrap over sequences, and occur often enough to be judged, see
    docs/results.md. Highest share first.
    """
    return [
        {"Task": title(task), "Top-2 gating tokens": ", ".join(_names(analyses)) or None}
        for task, analyses in analyzed_tasks(published).items()
        if task in paper.tasks()
    ]


def shown(published: Published) -> list[Row]:
    """Derive the same rows, with a word where none is found."""
    return [{name: value or "none" for name, value in row.items()} for row in rows(published)]


def notes(published: Published) -> list[str]:
    """Return none: the rows need no remark."""
    return []


def _names(analyses: list[Analysis]) -> list[str]:
    """Each word once, if both stacks have it."""
    words = top_words(items(analyses), 2 * LISTED)
    return list(dict.fromkeys(item.name for item in words))[:LISTED]
