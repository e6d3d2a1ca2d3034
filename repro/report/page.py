"""The report of a scale as Markdown and as one HTML page that needs nothing else."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from repro.report.numbers import short
from repro.report.tables.base import Cell, Row

VERDICTS: Mapping[str, str] = {
    "holds": "holds",
    "does not hold": "fails",
    "open": "open",
    "not measured": "unknown",
}
"""Verdicts, and the class of their cells."""
_SEVERAL = {"holds": "hold", "does not hold": "do not hold"}
_SHORT = 18
"""Characters of a cell that is not wrapped."""
HEADS = {
    "(paper)": "Paper",
    "Time": "Time, ratio",
    "FLOPs": "FLOPs, ratio",
    "Two": "Two experts, share",
    "T": "Threshold",
    "at eval": "Experts at evaluation",
    "Value": "Quality",
    "±": "± (95 %)",
    "Infl.": "Inflation of time, share",
    "/step": "Inflation per step",
    "noise": "Noise floor per step",
    "diff.": "Difference of quality",
    "Prec.": "Precision",
    "Top-1": "Tokens with one expert, share",
    "Compute": "Computation, ratio",
    "ms": "Time, ms",
    "/ dense": "Time over dense rows",
    "/ best HF": "Time over the best of transformers",
    "Scale": "Output scale at the start",
    "Gain": "Gain, points",
}
"""Heads that are short so that a table fits into a terminal -> what they say on a page."""
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|&(?=#|\w)")
"""What begins a tag or an entity."""
_MARKDOWN = re.compile(r"[|`\\]|\](?=[(\[:])")
"""What divides cells, begins code, or makes a link of the brackets before it."""
_CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure in a section."""

    name: str
    """Stem of its files in `figures/`."""
    title: str
    see: str
    """What to look for in it."""
    svg: str
    is_wide: bool = False
    """Whether it needs the width of the page; on a telephone it is scrolled."""

    @property
    def inline(self) -> Markup:
        """The drawing without its XML prologue; names inside it are made its own, as a page has several."""
        drawing = self.svg[self.svg.index("<svg") :]
        for mark in ('id="', 'href="#', "url(#"):
            drawing = drawing.replace(mark, f"{mark}{self.name}-")
        spoken = f'<svg role="img" aria-label="{html.escape(self.title)}"'
        return Markup(drawing.replace("<svg", spoken, 1))


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report: a title, a table, remarks, pictures."""

    title: str
    text: str = ""
    counts: Sequence[tuple[str, int]] = ()
    """Verdicts, and how many claims have each."""
    rows: Sequence[Row] = ()
    details: Sequence[Row] = ()
    """For each row what is folded under its first cell; none at all, or one for every row."""
    group: str | None = None
    """Column whose equal cells stand together, under a heading."""
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    is_folded: bool = False
    """Whether the table is shown only when it is asked for."""

    @property
    def anchor(self) -> str:
        """The title as an address within the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())

    @property
    def columns(self) -> list[str]:
        """Heads of the table, without that of the groups."""
        return [column for column in self.rows[0] if column != self.group] if self.rows else []

    @property
    def groups(self) -> list[tuple[Cell, list[tuple[list[tuple[str, Cell]], Row]]]]:
        """Heading, cells and details of the rows of each group; without groups one that has no heading."""
        found: dict[Cell, list[tuple[list[tuple[str, Cell]], Row]]] = {}
        for row, detail in self._with_details():
            cells = [(column, row[column]) for column in self.columns]
            found.setdefault(row[self.group] if self.group else None, []).append((cells, detail))
        return list(found.items())

    @property
    def full_rows(self) -> list[Row]:
        """Rows with their details as further columns."""
        return [{**row, **detail} for row, detail in self._with_details()]

    @property
    def is_beside(self) -> bool:
        """Whether its only picture stands beside the table where there is room."""
        return len(self.pictures) == 1 and not self.pictures[0].is_wide and bool(self.rows)

    def _with_details(self) -> list[tuple[Row, Row]]:
        nothing: Row = {}
        return list(zip(self.rows, self.details or [nothing] * len(self.rows), strict=True))


def markdown(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """Render the report as Markdown; pictures are linked from `figures/`."""
    templates = _environment(autoescape=False, finalize=lambda value: literal(str(value)))
    templates.filters |= {"cell": cell, "head": head, "several": several}
    template = templates.get_template("report.md")
    return template.render(title=title, introduction=introduction, sections=sections).rstrip() + "\n"


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """Render the report as one HTML page; pictures, style and script are inside."""
    templates = _environment(autoescape=True, finalize=_escaped)
    templates.filters |= {"cell": cell, "head": head, "css_class": _css_class, "several": several}
    template = templates.get_template("report.html")
    return template.render(title=title, introduction=introduction, sections=sections)


def literal(text: str) -> str:
    """Return Markdown, on one line, that shows a text as it is and holds no HTML."""
    text = _MARKUP.sub(lambda found: html.escape(found[0]), _CONTROL.sub(" ", text).strip())
    return _MARKDOWN.sub(lambda found: "\\" + found[0], text)


def cell(value: Cell) -> str:
    """Format three digits of a number, nothing where there is none.

    Raises:
        OverflowError: the number is not finite.
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else short(value)


def head(column: str) -> str:
    """Return the head of a column as a page has it; spaces that tell columns apart are dropped."""
    return HEADS.get(column.strip(), column.strip())


def _environment(*, autoescape: bool, finalize: Callable[[object], object] | None = None) -> Environment:
    return Environment(
        loader=PackageLoader("repro.report"),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _escaped(value: object) -> Markup:
    """Escape as the standard library does; Jinja spells quotation marks in another way."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def _css_class(value: Cell) -> str:
    if isinstance(value, int | float):
        return "number"
    words = str(value or "")
    return VERDICTS.get(words, "short" if len(words) <= _SHORT else "text")


def several(verdict: str, count: int) -> str:
    """Say the verdict of several claims."""
    return verdict if count == 1 else _SEVERAL.get(verdict, verdict)
