"""Gate activations of sampled tokens over the experts (Figure 1)."""

from typing import Any

from matplotlib.figure import Figure

from repro.figures._style import SHADES, SMALL, TEXT, label, panels
from repro.records import Published
from repro.tables._schemes import tasks_in_order, title

FILE = "figure1"
TITLE = "Gate probabilities of sampled tokens over the experts, middle layer, and share with a clear top-1"


def draw(published: Published) -> Figure | None:
    """A heat map for each task: rows are tokens, the most certain first, columns experts.

    The paper looks at "classical MoE models", so runs with top-2 gating come first; without one,
    an adaptive run. The first run shows its tokens; the share is the mean over all of them.
    """
    shown: dict[str, list[dict[str, Any]]] = {}
    for gate in ("adaptive", "top-2"):
        for task, analyses in published.analyzed(gate).items():
            with_tokens = [one for one in analyses if one["activations"]["tokens"]]
            shown |= {task: with_tokens} if with_tokens else {}
    if not shown:
        return None
    rows = (len(shown) + 1) // 2
    figure, axes = panels(rows, 2, row_height=1.6, rest=0.7)
    image: Any = None
    for place, task in enumerate(tasks_in_order(shown)):
        image = _panel(axes[place // 2, place % 2], task, shown[task])
    for place in range(len(shown), 2 * rows):
        axes[place // 2, place % 2].set_axis_off()
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, aspect=40)
    bar.set_label("gate probability", fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL, length=2)
    return figure


def _panel(axes: Any, task: str, analyses: list[dict[str, Any]]) -> Any:
    first = analyses[0]
    probabilities = [values for _, values in first["activations"]["tokens"]]
    probabilities.sort(key=max, reverse=True)
    image = axes.imshow(
        probabilities, aspect="auto", interpolation="none", cmap=SHADES, vmin=0, vmax=1, origin="upper"
    )
    label(axes, f"{title(task)}\n{first['gate']}, {_clear(analyses)}", "expert", "token")
    return image


def _clear(analyses: list[dict[str, Any]]) -> str:
    """The share of tokens with a clear top-1 expert, over all layers."""
    layers = [layer for analysis in analyses for layer in analysis["layers"]]
    tokens = sum(layer["tokens"] for layer in layers)
    return f"{sum(layer['clear'] for layer in layers) / tokens:.0%} clear" if tokens else "no token"
