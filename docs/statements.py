"""List every statement with numbers in README and docs, and the file that each comes from.

A statement is a paragraph, an item or a row of a table. Its files are those that it names, by a link or as a
path in backticks; else those that its section names, else those of the section above. A generated part
names its own. A commit in backticks stands for the results in it. Links between pages are no sources.

With --check nothing is printed but what is wrong: numbers without a file; an item of a list with more than
three numbers, which belong into a table. `log.md`, a diary, may have such items.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from pages import LINK, ROOT, Block, blocks, is_outside

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MOST = 3
"""Numbers of an item."""
DIARY = ROOT / "docs" / "log.md"

_REFERENCE = re.compile(
    r"\b(?:tables?|figures?|eqs?\.|equations?|sections?|algorithms?|python|seeds?|appendix|EMNLP)"
    r" \(?\d[\d.]*\)?(?:\([a-z]\))?(?:(?:,| and|, and| or| to|-) ?\(?\d[\d.]*\)?)*",
    re.IGNORECASE,
)
"""A number that is part of a name."""
_NOTED = re.compile(r"`[^`]*`|https?://\S+|\b\d{4}\.\d{5}\b|\b(?:19|20)\d\d\b")
"""Code, addresses, numbers of papers, years."""
_NUMBER = re.compile(r"(?<![\w.,/-])-?\d[\d,.]*(?![\w/]|-[a-z])")
_PATH = re.compile(r"`([\w./-]+/[\w./-]+|[\w-]+\.(?:py|toml|csv|json|jsonl|svg))`")
_COMMIT = re.compile(r"`([0-9a-f]{7,40})`")


def numbers(text: str) -> list[str]:
    """Return the numbers of a text that say something: not those of names, references, code and years."""
    shown = LINK.sub(lambda link: link[1], text)
    return [found[0].rstrip(".,") for found in _NUMBER.finditer(_REFERENCE.sub(" ", _NOTED.sub(" ", shown)))]


def sources(block: Block) -> list[str]:
    """Return the files that a block rests upon: its own, or those of the nearest section that names any."""
    if block.made_of is not None:
        return [block.made_of]
    own = _named(block.text, block.page)
    if own:
        return own
    by_section = _by_section(block.page)
    for depth in range(len(block.section), -1, -1):
        if named := by_section.get(block.section[:depth]):
            return list(dict.fromkeys(named))
    return []


@cache
def _by_section(page: Path) -> dict[tuple[int, ...], list[str]]:
    """Section -> the files that it names itself."""
    found: dict[tuple[int, ...], list[str]] = {}
    for block in blocks(page):
        found.setdefault(block.section, []).extend(_named(block.text, page))
    return found


def _named(text: str, page: Path) -> list[str]:
    """Return the files, commits and addresses that a text names; pages of the project are none."""
    found = []
    for _, target in LINK.findall(text):
        name = target.partition("#")[0]
        if is_outside(target):
            found.append(target)
        elif name and not name.endswith(".md"):
            file = (page.parent / name).resolve()
            found += [str(file.relative_to(ROOT))] if file.is_relative_to(ROOT) else []
    found += [name for name in _PATH.findall(text) if _file(name)]
    found += [f"commit {commit}" for commit in _COMMIT.findall(text) if re.search(r"\d", commit)]
    return found


def _file(name: str) -> Path | None:
    """Find a file that is named from the root, from `repro/`, or alone as one of the published results."""
    places = [ROOT / name, ROOT / "repro" / name, *(ROOT / "results" / "published").glob(f"*/{name}")]
    return next((place for place in places if place.exists()), None)


def statements(pages: Sequence[Path] = PAGES) -> Iterator[tuple[Block, list[str], list[str]]]:
    """Iterate over the statements with numbers: block, its numbers, its files."""
    for page in pages:
        for block in blocks(page):
            if found := numbers(block.text):
                yield block, found, sources(block)


def problems(pages: Sequence[Path] = PAGES) -> Iterator[str]:
    """Say in one line each which statement breaks a rule."""
    for block, found, files in statements(pages):
        if not files:
            yield f"{block.where}: {', '.join(found[:5])}: no file is named that this comes from"
        if block.kind == "item" and len(found) > MOST and block.page != DIARY and block.made_of is None:
            yield f"{block.where}: {len(found)} numbers in one item; a table shows them better"


def main() -> int:
    """Print the list, or what is wrong; return the exit status."""
    if "--check" in sys.argv[1:]:
        wrong = list(problems())
        print(*wrong, sep="\n", end="\n" if wrong else "")
        return bool(wrong)
    print("| where | statement | files |", "| --- | --- | --- |", sep="\n")
    for block, _, files in statements():
        text = block.text.strip("| ").replace("|", "\\|")
        print(f"| {block.where} | {text if len(text) <= 100 else text[:97] + '...'} | {', '.join(files)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
