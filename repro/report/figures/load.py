"""How evenly the experts are used: load of each expert in each layer."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from repro.report.schemes import tasks_in_order, title
from repro.report.style import RED, SHADES, SMALL, colour_bar, label, panels
from repro.results.analysis import Analysis
from repro.results.published import Published

FILE = "load"
TITLE = "Load of each expert by layer, relative to an even split; dead experts crossed out"
SEE = "Even rows (a small CV) use all experts alike; bright cells are experts that take most of the tokens."


def draw(published: Published) -> Figure | None:
    """Draw a heat map for each task, of its first adaptive run; beside each layer its variation.

    1 is an even load. The coefficient of variation (CV) is the standard deviation over experts of
    the load, divided by its mean.
    """
    tasks = published.analyzed("adaptive")
    if not tasks:
        return None
    depth = max(len(analyses[0].layers) for analyses in tasks.values())
    figure, axes = panels(len(tasks), 1, row_height=0.75 + 0.12 * depth, rest=0.7)
    images = [
        _panel(panel, task, tasks[task][0]) for panel, task in zip(axes, tasks_in_order(tasks), strict=True)
    ]
    colour_bar(figure, images[-1], "load relative to an even split", extend="max")
    return figure


def _panel(axes: Axes, task: str, analysis: Analysis) -> AxesImage:
    layers = analysis.layers
    relative = [relative_load(layer.load) for layer in layers]
    image = axes.imshow(relative, aspect="auto", interpolation="none", cmap=SHADES, vmin=0, vmax=2)
    dead = [
        (expert, row) for row, loads in enumerate(relative) for expert, load in enumerate(loads) if not load
    ]
    if dead:
        axes.plot(*zip(*dead, strict=True), "x", color=RED, ms=4, mew=1, label="dead expert")
    for row, loads in enumerate(relative):
        text = f"CV {variation(loads):.2f}"
        axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), fontsize=SMALL, va="center")
    label(axes, f"{title(task)}, seed {analysis.seed}", "expert", "layer")
    axes.set_yticks(range(len(layers)), [f"{layer.stack[:3]} {layer.layer + 1}" for layer in layers])
    return image


def relative_load(load: Sequence[int]) -> list[float]:
    """Divide the load of each expert by the mean load; zeros where nothing was routed."""
    total = sum(load)
    return [len(load) * value / total if total else 0.0 for value in load]


def variation(relative: Sequence[float]) -> float:
    """Return the coefficient of variation of loads whose mean is 1."""
    return float((sum((value - 1) ** 2 for value in relative) / len(relative)) ** 0.5) if relative else 0.0
