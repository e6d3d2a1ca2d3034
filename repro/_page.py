"""The report of a scale as Markdown and as one HTML page that needs nothing else."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

Row = Mapping[str, Any]
_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_VERDICTS = {"holds": "holds", "does not hold": "fails"}
"""Verdicts that stand out, and the class of their cells."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of a section."""

    name: str
    """Stem of its files in `figures/`."""
    title: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report: a title, a table, remarks, pictures."""

    title: str
    text: str = ""
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = field(default_factory=tuple)

    @property
    def anchor(self) -> str:
        """The title as an address within the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def markdown(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; pictures are linked from `figures/`."""
    lines = [f"# {title}", "", introduction]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        if section.text:
            lines += [section.text, ""]
        if section.rows:
            columns = list(section.rows[0])
            lines.append(f"| {' | '.join(name.strip() for name in columns)} |")
            lines.append(f"| {' | '.join('---' for _ in columns)} |")
            for row in section.rows:
                cells = (cell(row[name]).replace("|", "\\|") for name in columns)
                lines.append(f"| {' | '.join(cells)} |")
            lines.append("")
        lines += [f"* {note}" for note in section.notes]
        lines += [f"![{figure.title}](figures/{figure.name}.svg)" for figure in section.figures]
    return "\n".join(lines).rstrip() + "\n"


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """The report as one HTML page; pictures are inside."""
    links = " ".join(f'<a href="#{one.anchor}">{html.escape(one.title)}</a>' for one in sections)
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title),
        introduction=html.escape(introduction),
        contents=links,
        sections="\n".join(map(_section, sections)),
    )


def cell(value: Any) -> str:
    """Four digits of a number, nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _section(section: Section) -> str:
    parts = [f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>']
    if section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    if section.rows:
        parts.append(_table(section.rows))
    if section.notes:
        items = "".join(f"<li>{html.escape(note)}</li>" for note in section.notes)
        parts.append(f'<ul class="note">{items}</ul>')
    for figure in section.figures:
        caption = f"<figcaption>{html.escape(figure.title)}</figcaption>"
        parts.append(f"<figure>{_inline(figure)}{caption}</figure>")
    return "\n".join([*parts, "</section>"])


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name.strip())}</th>' for name in rows[0])
    body = "".join(f"<tr>{''.join(_td(*cell) for cell in row.items())}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _td(column: str, value: Any) -> str:
    kind = "number" if isinstance(value, int | float) else "text"
    if isinstance(value, str) and value in _VERDICTS:
        kind = _VERDICTS[value]
    text = html.escape(cell(value))
    if column == "Run":
        text = f'<a href="runs/{text}/result.json">{text}</a>'
    return f'<td class="{kind}">{text}</td>'


def _inline(figure: Figure) -> str:
    """The picture without its XML prologue; names inside it are made its own, as a page has several."""
    drawing = figure.svg[figure.svg.index("<svg") :]
    for mark in ('id="', 'href="#', "url(#"):
        drawing = drawing.replace(mark, f"{mark}{figure.name}-")
    return drawing
