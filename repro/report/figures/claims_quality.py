"""All claims about quality and floating-point operations, AdaMoE's headline included."""

from matplotlib.figure import Figure

from repro.report.forest import forest
from repro.results.published import Published

FILE = "claims_quality"
TITLE = "All claims about quality and FLOPs: differences of losses, and ratios of operations"
SEE = "A loss right of 0 is worse than what it is compared with; 0.01 nats are 1 % of perplexity."


def draw(published: Published) -> Figure | None:
    """Draw the claims about quality and FLOPs; None if none of them was measured."""
    return forest(published, lambda claim: claim.subject in ("quality", "FLOPs", "AdaMoE"))
