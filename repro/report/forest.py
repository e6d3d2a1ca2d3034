"""Forest plots of claims: our number with its 95 % interval, the paper's, and where the claim holds."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.claims.definition import Claim
from repro.report.claims.units import COUNTED
from repro.report.claims.verdicts import Judged, judged
from repro.report.style import BLACK, FAINT, GREEN, RED, SMALL, TEXT, UNNAMED, WIDTH, legend, reach
from repro.results.published import Published

LOOKS: Mapping[str, tuple[str, str]] = {
    "holds": (GREEN, "o"),
    "does not hold": (RED, "X"),
    "open": (UNNAMED, "D"),
    "not measured": (FAINT, ""),
}
"""Verdict -> colour and marker; the word stands beside them."""
_INK = {"holds": "#00664b", "does not hold": "#a33b00", "open": "#4a4f57", "not measured": "#5c5c5c"}
"""Verdict -> colour of its word: darker, as letters are thin."""
_REGION = "#dbe5ee"
_CHARACTERS = 61
"""Of a line of text, at this width and size."""
_BOLD = 1.35
"""Width of a bold character, in others."""
_LINE, _BAR, _GAP = 0.12, 0.13, 0.07
"""Inches: a line of text, the place of an interval, and what lies between claims."""
_AXIS, _LEGEND, _MARGIN = 0.36, 0.33, 0.1
"""Inches: ticks and label below a panel, what is above all of them, left and right."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the numbers of a claim stand on its axis."""

    value: float | None
    low: float | None
    """End of the interval; None without one, minus infinity if it is open."""
    high: float | None
    paper: float | None
    above: float
    """The claim holds from here on ..."""
    below: float
    """... to here."""


@dataclass(frozen=True)
class _Panel:
    """Claims on one axis."""

    label: str
    rows: list[Judged] = field(default_factory=list)

    @property
    def height(self) -> float:
        """Inches."""
        return sum(map(_height, self.rows))


def forest(published: Published, wanted: Callable[[Claim], bool]) -> Figure | None:
    """Draw claims, a panel for each unit; None if none of them was measured.

    The shaded region is where a claim holds; it does if the whole interval lies in there.
    """
    chosen = [one for one in judged(published) if wanted(one.claim)]
    if all(one.judgement.estimate is None for one in chosen):
        return None
    panels: dict[str, _Panel] = {}
    for one in chosen:
        label = one.unit.axis if one.claim.count is None else COUNTED
        panels.setdefault(label, _Panel(label)).rows.append(one)
    height = _LEGEND + sum(panel.height + _AXIS for panel in panels.values())
    # All heights are known; a layout that measures every text would take as long again.
    figure = Figure(figsize=(WIDTH, height))
    top = height - _LEGEND
    for panel in panels.values():
        sides = _MARGIN / WIDTH, (top - panel.height) / height, 1 - 2 * _MARGIN / WIDTH, panel.height / height
        _draw(figure.add_axes(sides), panel)
        top -= panel.height + _AXIS
    _name(figure.axes[0], {one.judgement.verdict for one in chosen})
    legend(figure, columns=3)
    return figure


def place(one: Judged) -> Place:
    """Scale the numbers of a claim to its axis: as the unit is shown, or to the share of the items."""
    claim, estimate = one.claim, one.judgement.estimate
    if claim.count is not None:
        total = one.judgement.total or 1
        need = one.need / total if one.judgement.total else 1.0
        paper = None
        if claim.paper_value is not None and claim.paper_of:
            paper = claim.paper_value / claim.paper_of
        ends = (None, None) if estimate is None else (estimate.low, estimate.high)
        low, high = (None if end is None else end / total for end in ends)
        value = None if estimate is None else estimate.value / total
        return Place(value=value, low=low, high=high, paper=paper, above=need, below=math.inf)
    factor = one.unit.factor

    def scaled(number: float | None) -> float | None:
        return None if number is None else factor * number

    return Place(
        value=scaled(estimate.value) if estimate else None,
        low=scaled(estimate.low) if estimate else None,
        high=scaled(estimate.high) if estimate else None,
        paper=scaled(claim.paper_value),
        above=-math.inf if claim.above is None else factor * claim.above,
        below=math.inf if claim.below is None else factor * claim.below,
    )


def _name(axes: Axes, verdicts: Set[str]) -> None:
    """Add what the legend explains, in a fixed order."""
    for verdict, (colour, marker) in LOOKS.items():
        if marker and verdict in verdicts:
            axes.plot([], [], marker, color=colour, ms=4, mew=0.5, label=verdict)
    axes.plot([], [], "*", color=BLACK, ms=6, label="the paper")
    axes.plot([], [], "s", color=_REGION, ms=6, label="where it holds")


def _lines(one: Judged) -> list[str]:
    """Wrap the words of a claim so that the verdict fits behind the last line."""
    lines = textwrap.wrap(one.claim.text, _CHARACTERS)
    if len(lines[-1]) + _BOLD * len(one.judgement.verdict) + 1 > _CHARACTERS:
        lines.append("")
    return lines


def _height(one: Judged) -> float:
    return _LINE * len(_lines(one)) + _BAR + _GAP


def _draw(axes: Axes, panel: _Panel) -> None:
    places = [place(one) for one in panel.rows]
    low, high = _limits(panel, places)
    top = 0.0
    for one, of_claim in zip(panel.rows, places, strict=True):
        _text(axes, one, top)
        _bar(axes, one, of_claim, (low, high), top + _LINE * len(_lines(one)) + _BAR / 2)
        top += _height(one)
    axes.set_xlim(low, high)
    axes.set_ylim(top, 0)
    axes.set_yticks([])
    axes.set_xlabel(panel.label, fontsize=TEXT, labelpad=1)
    axes.tick_params(labelsize=SMALL, length=2, pad=1)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def _limits(panel: _Panel, places: Sequence[Place]) -> tuple[float, float]:
    if panel.label == COUNTED:
        return -0.04, 1.04
    anchors = [number for one in places for number in (one.value, one.paper) if number is not None]
    anchors += [limit for one in places for limit in (one.above, one.below) if math.isfinite(limit)]
    if panel.rows[0].unit.is_signed:
        anchors.append(0.0)  # no difference
    ends = [end for one in places for end in (one.low, one.high) if end is not None and math.isfinite(end)]
    return reach(anchors, ends)


def _text(axes: Axes, one: Judged, top: float) -> None:
    lines, verdict = _lines(one), one.judgement.verdict
    across = axes.get_yaxis_transform()
    for number, line in enumerate(lines):
        words = axes.text(0, top + _LINE * number, line, transform=across, va="top", fontsize=TEXT)
        words.set_in_layout(False)
    words = axes.text(1, top + _LINE * (len(lines) - 1), verdict, transform=across, va="top", ha="right")
    words.set(fontsize=TEXT, color=_INK[verdict], fontweight="bold", in_layout=False)


def _bar(axes: Axes, one: Judged, of_claim: Place, limits: tuple[float, float], y: float) -> None:
    """Draw the region, the interval, our number and the paper's; what is off the axis is at its end."""
    verdict = one.judgement.verdict
    colour, marker = LOOKS[verdict]
    half = 0.4 * _BAR
    region = max(of_claim.above, limits[0]), min(of_claim.below, limits[1])
    axes.fill_betweenx([y - half, y + half], *region, color=_REGION, lw=0)
    for limit in (of_claim.above, of_claim.below):
        if math.isfinite(limit):
            axes.plot([limit, limit], [y - half, y + half], color=BLACK, lw=0.6)
    if of_claim.paper is not None:
        axes.plot(of_claim.paper, y, "*", color=BLACK, mec="white", mew=0.3, ms=6, zorder=4)
    if of_claim.value is None:
        return
    if of_claim.low is not None and of_claim.high is not None:
        ends = max(of_claim.low, limits[0]), min(of_claim.high, limits[1])
        axes.plot(ends, [y, y], color=colour, lw=1.4, solid_capstyle="butt")
        for end, edge, arrow in (
            (of_claim.low, limits[0], "<"),
            (of_claim.high, limits[1], ">"),
        ):
            if (end < edge) if arrow == "<" else (end > edge):
                axes.plot(edge, y, arrow, color=colour, ms=3, clip_on=False)
    shown = min(max(of_claim.value, limits[0]), limits[1])
    axes.plot(shown, y, marker, color=colour, ms=4, mew=0.5, zorder=3, clip_on=False)
