"""All claims about time, of whole trainings and of one layer."""

from matplotlib.figure import Figure

from repro.report.forest import forest
from repro.results.published import Published

FILE = "claims_time"
TITLE = "All claims about time: ratios of times to equal loss, and how many tasks or cases keep to a rule"
SEE = "Left of 1 the first scheme that a claim names is the faster one; a bar across 1 decides nothing."


def draw(published: Published) -> Figure | None:
    """Draw the claims about time; None if none of them was measured."""
    return forest(published, lambda claim: claim.subject == "time")
