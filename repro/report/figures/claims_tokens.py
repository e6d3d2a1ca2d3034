"""All claims about which tokens and layers get two experts."""

from matplotlib.figure import Figure

from repro.report.forest import forest
from repro.results.published import Published

FILE = "claims_tokens"
TITLE = "All claims about tokens and layers: who gets two experts more often"
SEE = "Right of 0 the words or layers that a claim names get two experts more often than the others."


def draw(published: Published) -> Figure | None:
    """Draw the claims about tokens and layers; None if none of them was measured."""
    return forest(published, lambda claim: claim.subject == "tokens and layers")
