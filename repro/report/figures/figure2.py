"""Share of two-expert tokens by layer and over training (Figure 2)."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from repro import paper
from repro.report.schemes import tasks_in_order, title
from repro.report.style import BLACK, STACKS, label, legend, lines_only, mean_line, panels
from repro.results.analysis import Analysis
from repro.results.published import Published

FILE = "figure2"
TITLE = "Share of tokens with two experts by layer, encoder and decoder apart, and over training"
SEE = "How the share changes along the layers, and how far from the paper's dotted level it settles."

Series = list[tuple[float, list[float]]]
"""Places on the x axis with the values of the runs there, in percent."""


def draw(published: Published) -> Figure | None:
    """Draw for each task the trained model by layer on the left, training on the right, all layers together.

    Lines are means over seeds, bands go from the lowest seed to the highest. Dotted: the paper's share
    of all layers together (4.4).
    """
    tasks = published.analyzed("adaptive")
    if not tasks:
        return None
    figure, axes = panels(2 * len(tasks), 2)
    for task, left, right in zip(tasks_in_order(tasks), axes[::2], axes[1::2], strict=True):
        for stack, colour in STACKS.items():
            for panel, series, marker in (
                (left, _by_layer(tasks[task], stack), "o"),
                (right, _over_training(tasks[task], stack), ""),
            ):
                if series:
                    x, shares = zip(*series, strict=True)
                    mean_line(panel, x, shares, name=stack, colour=colour, marker=marker)
        share = paper.tables()["share_two"].get(task)
        if share is not None:
            left.axhline(100 * share, color=BLACK, lw=0.8, ls=":", label="paper, all layers")
        label(left, title(task), "layer", "two experts (%)")
        label(right, "over training", "step", "two experts (%)")
        left.locator_params(axis="x", integer=True)
        for panel in (left, right):
            panel.set_ylim(bottom=0)
            lines_only(panel)
    legend(figure)
    return figure


def _by_layer(analyses: Sequence[Analysis], stack: str) -> Series:
    """Share in each layer of the stack, counted from 1, on the validation split."""
    values: dict[int, list[float]] = {}
    for analysis in analyses:
        layers = [layer for layer in analysis.layers if layer.stack == stack]
        for number, layer in enumerate(layers, 1):
            if layer.tokens:
                values.setdefault(number, []).append(100 * layer.multi_expert / layer.tokens)
    return [(number, values[number]) for number in sorted(values)]


def _over_training(analyses: Sequence[Analysis], stack: str) -> Series:
    """Mean share over the layers of the stack at each step that all runs recorded a point for."""
    runs = [run for analysis in analyses if (run := _of_run(analysis, stack))]
    # Runs of one configuration may end some steps apart; points of equal rank belong together.
    points = zip(*runs, strict=False)
    return [(fmean(step for step, _ in point), [share for _, share in point]) for point in points]


def _of_run(analysis: Analysis, stack: str) -> list[tuple[float, float]]:
    """Return steps, and the mean share over the layers of the stack that recorded one, in percent."""
    layers = {layer.layer for layer in analysis.layers if layer.stack == stack}
    training = analysis.training
    points = []
    for step, by_layer in zip(training.steps, training.share_two, strict=True):
        shares = [share for layer, share in enumerate(by_layer) if layer in layers and share is not None]
        if shares:
            points.append((float(step), 100 * fmean(shares)))
    return points
