"""Table 4: the tokens most often sent to two experts, by task."""

from typing import Any

from repro.records import Published
from repro.tables._analyses import analyzed_tasks, items, top_words
from repro.tables._schemes import title

FILE = "table4.csv"
COLUMNS = ("Task", "Top-2 gating tokens")
LISTED = 10
"""Words of a task."""


def rows(published: Published) -> list[dict[str, Any]]:
    """The paper's columns. A cell is empty where no word is significantly above the base rate.

    Words that occur often enough to be judged, see docs/results.md; highest share first.
    """
    return [
        {"Task": title(task), "Top-2 gating tokens": ", ".join(_names(analyses)) or None}
        for task, analyses in analyzed_tasks(published).items()
    ]


def _names(analyses: list[dict[str, Any]]) -> list[str]:
    """Each word once, if both stacks have it."""
    words = top_words(items(analyses), 2 * LISTED)
    return list(dict.fromkeys(item.name for item in words))[:LISTED]
