"""What the tables and claims of the threshold study share."""

from typing import Literal

from repro import paper

STUDY = "threshold"


def printed(task: str, threshold: str, column: Literal["time", "performance"]) -> float | None:
    """Return the paper's number in Table 5."""
    table = paper.tables()["table5"]
    cells = zip(table["thresholds"], table[column].get(task, ()), strict=False)
    values: dict[str, float] = {f"{at:g}": value for at, value in cells}
    return values.get(threshold)
