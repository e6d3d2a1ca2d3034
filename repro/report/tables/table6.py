"""Table 6: what is lost without the curriculum: time to equal loss, and performance."""

from repro.report.curriculum import cell, difference, inflation, orders
from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.results.published import Published

FILE = "table6.csv"
COLUMNS = ("Task", "Training Time Inflation", "Inference Performance")


def rows(published: Published) -> list[Row]:
    """Derive the paper's columns: random order against the curriculum, on the default back-end.

    Inflation is the time to the curriculum's loss at its budget, over the curriculum's, minus 1, with times a
    step of ordered epochs. Performance is a difference; what is better depends on the metric.
    """
    return [
        {
            "Task": row.title,
            "Training Time Inflation": cell(row, inflation(row)),
            "Inference Performance": rounded(difference(row)),
        }
        for row in orders(published)
        if row.scheme == "random" and row.is_of_paper
    ]
