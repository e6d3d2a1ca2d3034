"""Lay out the pages of the site in build/docs: README, pages, and the files that they link to, in their places."""

import shutil

from pages import PAGES, ROOT, is_outside, links

STAGE = ROOT / "build" / "docs"


def main() -> None:
    """Write the folder anew. Folders that are linked to are left out: a site has no listings."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for page in PAGES:
        linked = {
            (page.parent / target.partition("#")[0]).resolve()
            for _, target in links(page)
            if not is_outside(target) and not target.startswith("#")
        }
        for file in {page, *linked}:
            if file.is_file():
                copy = STAGE / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


if __name__ == "__main__":
    main()
