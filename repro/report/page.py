"""The report of a scale as Markdown and as one HTML page that needs nothing else."""

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from repro.report.tables.base import Cell, Row

_VERDICTS: Mapping[Cell, str] = {"holds": "holds", "does not hold": "fails"}
"""Verdicts that stand out, and the class of their cells."""
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
    svg: str

    @property
    def inline(self) -> Markup:
        """The drawing without its XML prologue; names inside it are made its own, as a page has several."""
        drawing = self.svg[self.svg.index("<svg") :]
        for mark in ('id="', 'href="#', "url(#"):
            drawing = drawing.replace(mark, f"{mark}{self.name}-")
        return Markup(drawing)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report: a title, a table, remarks, pictures."""

    title: str
    text: str = ""
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()

    @property
    def anchor(self) -> str:
        """The title as an address within the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def markdown(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """Render the report as Markdown; pictures are linked from `figures/`."""
    templates = _environment(autoescape=False, finalize=lambda value: literal(str(value)))
    templates.filters["cell"] = cell
    template = templates.get_template("report.md")
    return template.render(title=title, introduction=introduction, sections=sections).rstrip() + "\n"


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """Render the report as one HTML page; pictures are inside."""
    templates = _environment(autoescape=True, finalize=_escaped)
    templates.filters |= {"cell": cell, "css_class": _css_class}
    template = templates.get_template("report.html")
    return template.render(title=title, introduction=introduction, sections=sections)


def literal(text: str) -> str:
    """Return Markdown, on one line, that shows a text as it is and holds no HTML."""
    text = _MARKUP.sub(lambda found: html.escape(found[0]), _CONTROL.sub(" ", text).strip())
    return _MARKDOWN.sub(lambda found: "\\" + found[0], text)


def cell(value: Cell) -> str:
    """Format four digits of a number, nothing where there is none.

    Raises:
        OverflowError: the number is not finite.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise OverflowError(f"a cell is {value}")
        return f"{value:.4g}"
    return str(value)


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
    return "number" if isinstance(value, int | float) else _VERDICTS.get(value, "text")
