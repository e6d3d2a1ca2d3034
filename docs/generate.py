"""Write the generated parts of the documentation; with --check fail if one is stale.

Today that is the table of floors in docs/architecture.md, from docs/floors.toml.
"""

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
START, END = "<!-- floors: written by `make docs` from docs/floors.toml -->", "<!-- end of floors -->"


def floors_table() -> str:
    """Return the floors as a Markdown table, from the top down."""
    floors = tomllib.loads((DOCS / "floors.toml").read_text(encoding="utf-8"))["floor"]
    lines = ["| floor | rooms | what is there |", "| --- | --- | --- |"]
    for height, floor in zip(range(len(floors), 0, -1), floors, strict=True):
        rooms = ", ".join(f"`{room}`" for room in floor["rooms"])
        lines.append(f"| {height} | {rooms} | {floor['what']} |")
    return "\n".join(lines)


def with_floors(text: str) -> str:
    """Return the page with a fresh table between its markers."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{floors_table()}\n\n{END}{after}"


def main() -> int:
    """Write or check; return the exit status."""
    page = DOCS / "architecture.md"
    text = page.read_text(encoding="utf-8")
    fresh = with_floors(text)
    if "--check" not in sys.argv[1:]:
        page.write_text(fresh, encoding="utf-8")
        return 0
    if text != fresh:
        print(f"{page.name}: the table of floors is not what floors.toml says; `make docs` writes it")
    return int(text != fresh)


if __name__ == "__main__":
    sys.exit(main())
