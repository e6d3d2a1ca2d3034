"""Pages in Markdown, as far as their checks need it: blocks of text in sections, links, anchors."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
"""Every page of the project, of which all links are checked."""

_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"(#+) (.*)")
_ITEM = re.compile(r"\s*(?:[*+-]|\d+\.) ")
_PART = re.compile(r"<!-- [^:]+: written by .*? from (.*?) -->")
_CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")
"""Text and target of a link or picture."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A paragraph, an item of a list or a row of a table."""

    page: Path
    line: int
    kind: str
    """`paragraph`, `item` or `row`."""
    text: str
    section: tuple[int, ...]
    """Place among the headings: lines of the headings above it, the outermost first."""
    made_of: str | None
    """What it was generated from; None of text written by hand."""

    @property
    def where(self) -> str:
        """Page and line, as compilers print them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Iterate over the blocks of a page; headings, code and comments are none."""
    headings: list[tuple[int, int]] = []
    made_of: str | None = None
    kind, first, lines = "", 0, list[str]()

    def done() -> Iterator[Block]:
        if lines:
            yield Block(
                page=page,
                line=first,
                kind=kind,
                text=" ".join(line.strip() for line in lines),
                section=tuple(line for _, line in headings),
                made_of=made_of,
            )
            lines.clear()

    for number, line in _prose(page):
        heading, part = _HEADING.match(line), _PART.match(line)
        starts = "row" if line.startswith("|") else "item" if _ITEM.match(line) else ""
        if heading or not line.strip() or line.startswith("<!--") or starts:
            yield from done()
        if heading:
            level = len(heading[1])
            headings = [(above, place) for above, place in headings if above < level] + [(level, number)]
        elif line.startswith("<!--"):
            made_of = part[1] if part else None
        elif line.strip():
            if not lines:
                kind, first = starts or "paragraph", number
            lines.append(_ITEM.sub("", line, count=1) if starts == "item" else line)
    yield from done()


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Iterate over the links and pictures of a page: line of the block and target."""
    for block in blocks(page):
        for _, target in LINK.findall(_CODE.sub(lambda code: code[0].replace("[", " "), block.text)):
            yield block.line, target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in _prose(page):
        heading = _HEADING.match(line)
        if heading:
            words = re.sub(r"[^\w\s-]", "", LINK.sub(r"\1", heading[2]).lower())
            slug = words.strip().replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def is_outside(target: str) -> bool:
    """Return whether a link leaves the repository."""
    return re.match(r"[a-z]+:", target) is not None


def broken_links(page: Path) -> Iterator[str]:
    """Say in one line each what a page links to that is not there; nothing outside is looked at."""
    for number, target in links(page):
        if is_outside(target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        where = f"{page.relative_to(ROOT)}:{number}: {target}"
        if not file.exists():
            yield f"{where}: no such file"
        elif not file.is_relative_to(ROOT):
            yield f"{where}: outside of the repository"
        elif file.is_relative_to(ROOT / "results") and not file.is_relative_to(
            ROOT / "results" / "published"
        ):
            yield f"{where}: not in git; link to results/published"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{where}: no such heading"


def _prose(page: Path) -> Iterator[tuple[int, str]]:
    """Iterate over the lines of a page, counted from 1, without those of code."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            inside = not inside
            yield number, ""
        elif not inside:
            yield number, line
