"""Gate activations of sampled tokens over the experts (Figure 1)."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from repro.report.schemes import tasks_in_order, title
from repro.report.style import SHADES, colour_bar, label, panels
from repro.results.analysis import Analysis
from repro.results.published import Published

FILE = "figure1"
TITLE = "Gate probabilities of sampled tokens over the experts, middle layer, and share with a clear top-1"
SEE = "A row with one bright cell is a clear decision; a row of even shade is a token for two experts."


def draw(published: Published) -> Figure | None:
    """Draw a heat map for each task: rows are tokens, the most certain first, columns experts.

    The paper looks at "classical MoE models", so runs with top-2 gating come first; without one,
    an adaptive run. The first run shows its tokens; the share is the mean over all of them.
    """
    tasks: dict[str, list[Analysis]] = {}
    for gate in ("adaptive", "top-2"):
        for task, analyses in published.analyzed(gate).items():
            with_tokens = [analysis for analysis in analyses if analysis.activations.tokens]
            tasks |= {task: with_tokens} if with_tokens else {}
    if not tasks:
        return None
    figure, axes = panels(len(tasks), 2, row_height=1.6, rest=0.7)
    images = [
        _panel(panel, task, tasks[task]) for panel, task in zip(axes, tasks_in_order(tasks), strict=True)
    ]
    colour_bar(figure, images[-1], "gate probability")
    return figure


def _panel(axes: Axes, task: str, analyses: Sequence[Analysis]) -> AxesImage:
    first = analyses[0]
    probabilities = [token.probabilities for token in first.activations.tokens]
    probabilities.sort(key=max, reverse=True)
    image = axes.imshow(
        probabilities, aspect="auto", interpolation="none", cmap=SHADES, vmin=0, vmax=1, origin="upper"
    )
    label(axes, f"{title(task)}\n{first.gate}, {_clear(analyses)}", "expert", "token")
    return image


def _clear(analyses: Sequence[Analysis]) -> str:
    """Format the share of tokens with a clear top-1 expert, over all layers."""
    layers = [layer for analysis in analyses for layer in analysis.layers]
    tokens = sum(layer.tokens for layer in layers)
    return f"{sum(layer.clear for layer in layers) / tokens:.0%} clear" if tokens else "no token"
