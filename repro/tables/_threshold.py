"""What the tables of the threshold study share."""

from repro import paper

STUDY = "threshold"


def printed(task: str, threshold: str, what: str) -> float | None:
    """The paper's number; `what` is `time` or `performance`."""
    table = paper.tables()["table5"]
    values = {
        f"{at:g}": value for at, value in zip(table["thresholds"], table[what].get(task, ()), strict=False)
    }
    return values.get(threshold)
