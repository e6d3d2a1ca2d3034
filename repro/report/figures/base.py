"""Contract of the figures: drawn from what a scale has published, and from nothing else. No torch here.

A file `report/figures/<name>.py` is a figure: its module satisfies `FigureModule`.
"""

from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from repro import plugins
from repro.results.published import Published

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class FigureModule(Protocol):
    """A figure with two files, `figures/<FILE>.svg` and `figures/<FILE>.png`."""

    @property
    def FILE(self) -> str:
        """Name of its files, without suffix."""

    @property
    def TITLE(self) -> str:
        """What it shows, in one line."""

    @property
    def SEE(self) -> str:
        """What to look for in it, one sentence."""

    def draw(self, published: Published) -> "Figure | None":
        """Draw it; None if nothing that it shows was measured."""


def load(name: str) -> FigureModule:
    """Load a figure by name.

    Raises:
        UserError: there is no such figure.
    """
    return cast(FigureModule, plugins.load("figures", name))
