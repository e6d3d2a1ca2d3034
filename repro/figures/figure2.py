"""Share of two-expert tokens by layer and over training (Figure 2)."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from repro import paper
from repro.figures._style import BLACK, STACKS, finite, label, legend, lines_only, panels
from repro.records import Published
from repro.tables._schemes import tasks_in_order, title

FILE = "figure2"
TITLE = "Share of tokens with two experts by layer, encoder and decoder apart, and over training"


def draw(published: Published) -> Figure | None:
    """For each task left the trained model by layer, right the mean over layers during training.

    Lines are means over seeds, bands go from the lowest seed to the highest. Dotted: the paper's share
    of all layers together (4.4).
    """
    tasks = published.analyzed("adaptive")
    if not tasks:
        return None
    figure, axes = panels(len(tasks), 2)
    for row, task in enumerate(tasks_in_order(tasks)):
        left, right = axes[row]
        for stack, colour in STACKS.items():
            _lines(left, _by_layer(tasks[task], stack), stack, colour, marker="o")
            _lines(right, _over_training(tasks[task], stack), stack, colour, marker="")
        share = paper.tables()["share_two"].get(task)
        if share is not None:
            left.axhline(100 * share, color=BLACK, lw=0.8, ls=":", label="paper, all layers")
        label(left, title(task), "layer", "two experts (%)")
        label(right, "over training", "step", "two experts (%)")
        left.xaxis.get_major_locator().set_params(integer=True)
        for one in (left, right):
            one.set_ylim(bottom=0)
            lines_only(one)
    legend(figure, list(axes.flat))
    return figure


Series = list[tuple[float, list[float]]]
"""Places on the x axis with the values of the runs there, in percent."""


def _lines(axes: Any, series: Series, name: str, colour: str, marker: str) -> None:
    if not series:
        return
    x = [place for place, _ in series]
    axes.plot(x, [fmean(values) for _, values in series], color=colour, marker=marker, ms=3, lw=1, label=name)
    lows, highs = [min(values) for _, values in series], [max(values) for _, values in series]
    axes.fill_between(x, lows, highs, color=colour, alpha=0.2, lw=0)


def _by_layer(analyses: Sequence[dict[str, Any]], stack: str) -> Series:
    """Share in each layer of the stack, counted from 1, on the validation split."""
    values: dict[int, list[float]] = {}
    for analysis in analyses:
        layers = [layer for layer in analysis["layers"] if layer["stack"] == stack]
        for number, layer in enumerate(layers, 1):
            if layer["tokens"]:
                values.setdefault(number, []).append(100 * sum(layer["by_count"][2:]) / layer["tokens"])
    return [(number, values[number]) for number in sorted(values)]


def _over_training(analyses: Sequence[dict[str, Any]], stack: str) -> Series:
    """Mean share over the layers of the stack at each step that all runs recorded a point for."""
    runs = [_of_run(analysis, stack) for analysis in analyses]
    runs = [run for run in runs if run]
    if not runs:
        return []
    # Runs of one configuration may end some steps apart; points of equal rank belong together.
    points = zip(*runs, strict=False)
    return [(fmean(step for step, _ in point), [share for _, share in point]) for point in points]


def _of_run(analysis: dict[str, Any], stack: str) -> list[tuple[float, float]]:
    mine = {layer["layer"] for layer in analysis["layers"] if layer["stack"] == stack}
    training = analysis["training"]
    found = []
    for step, shares in zip(training["steps"], training["share_two"], strict=True):
        values = [share for layer, share in enumerate(shares) if layer in mine and finite(share)]
        if values:
            found.append((float(step), 100 * fmean(values)))
    return found
