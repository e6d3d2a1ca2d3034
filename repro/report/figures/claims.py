"""The main claims of the paper: ours with its interval, the paper's number, where the claim holds."""

from matplotlib.figure import Figure

from repro.report.forest import forest
from repro.results.published import Published

FILE = "claims"
TITLE = "The main claims: our number with its 95 % interval, the paper's number, and where the claim holds"
SEE = "A claim holds where the whole bar lies in the shaded part, does not where none does, and else is open."


def draw(published: Published) -> Figure | None:
    """Draw the claims that a reader in a hurry looks for; None if none of them was measured."""
    return forest(published, lambda claim: claim.headline)
