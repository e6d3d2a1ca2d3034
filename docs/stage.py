"""Lay out the site in build/docs: README, pages, and the files that they link to, in their places."""

import shutil

from pages import PAGES, ROOT, is_outside, links

STAGE = ROOT / "build" / "docs"
STYLE = ROOT / "docs" / "site.css"


def main() -> None:
    """Write the folder anew. Folders that are linked to are left out: a site has no listings."""
    shutil.rmtree(STAGE, ignore_errors=True)
    found, todo = set(PAGES), [*PAGES, STYLE]
    while todo:
        file = todo.pop()
        copy = STAGE / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        if file.suffix == ".md":
            targets = [target.partition("#")[0] for _, target in links(file) if not is_outside(target)]
            linked = {(file.parent / target).resolve() for target in targets if target}
            todo += [path for path in linked - found if path.is_file()]
            found |= linked


if __name__ == "__main__":
    main()
