"""Publish a scale: what its finished runs give becomes the folder in git, as a whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repro import plugins
from repro.errors import UserError
from repro.report.build import build_report, stale_files
from repro.report.origin import mixed_studies
from repro.report.tables import base as tables
from repro.results.bench import Bench
from repro.results.files import append_jsonl, write_json
from repro.results.published import FOLDER, Published
from repro.results.thinning import Thinnings

_OLD = "old"
"""The folder as it was, while the new one takes its place."""


def published_folder(results: Path, scale: str) -> Path:
    """Return the folder of a scale that is in git."""
    return results / FOLDER / scale


def stale_published(results: Path, scale: str | None = None) -> list[Path]:
    """Return the published files that are not what the published runs give, or are missing.

    Args:
        scale: None: every scale that is published.

    Raises:
        UserError: nothing is published, or a file is damaged.
    """
    folders = (path for path in (results / FOLDER).glob("*") if path.is_dir())
    names = sorted(path.name for path in folders if not path.name.startswith("."))
    if not names or scale not in (None, *names):
        what = "nothing" if not names else f"{', '.join(names)}, not {scale}"
        raise UserError(f"{results / FOLDER}: {what} is published; `repro report --publish` does it")
    return [
        published_folder(results, name) / file
        for name in ([scale] if scale else names)
        for file in stale_files(published_folder(results, name))
    ]


def publish(results: Path, scale: str, *, mixed: bool = False) -> list[Path]:
    """Publish what studies compare at a scale, its analyses and its layer timings, with tables and report.

    A task of a study, an analysis or a timing that was published before and is not there anew stays, and so
    does a file that was put there by hand; with nothing new, tables and report are made again. Runs that no
    study compares are left out, and so are pages of shaded tokens that show text of real data sets.

    Args:
        mixed: also comparisons of several states of the code, or of several machines; tables say so.

    Returns:
        The published tables, figures and pages.

    Raises:
        UserError: nothing was measured; a comparison is mixed; it is not known which command asked for a run;
            a file is damaged; the folder cannot be written. What was published before is still there.
    """
    target = published_folder(results, scale)
    try:
        _restore(target)
        ours = Published.read(results / scale).compared()
        whole = ours.over(Published.read(target)).compared()
        if not (whole.results or whole.bench or whole.parallel or whole.thinnings):
            nothing = "no finished run of a study and no layer timing; see `repro ablate --help`"
            raise UserError(f"{results / scale}: {nothing}")
        problems = _without_command(results / scale, ours)
        if not mixed:
            way_out = "do the others again in one command, or publish with --mixed"
            problems += [f"{results / scale}: {problem}; {way_out}" for problem in mixed_studies(whole)]
        if problems:
            raise UserError(*problems)
        with _replacing(target) as new:
            _write(whole, new, pages=(results / scale / "analysis", target / "analysis"))
            if (target / "figures").is_dir():  # pixels of equal drawings stay as they are
                shutil.copytree(target / "figures", new / "figures")
            for path in _by_hand(target):
                shutil.copyfile(path, new / path.name)
            written = build_report(new)
            for path in set(new.glob("figures/*")) - set(written):
                path.unlink()
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from error
    return [target / path.relative_to(new) for path in written]


def _by_hand(target: Path) -> list[Path]:
    """Return the published files that no command of this package writes: they stay."""
    ours = {tables.load(name).FILE for name in plugins.names("tables")}
    ours |= {"runs.jsonl", "bench.json", "thinning.json", "report.md", "report.html"}
    return [path for path in target.glob("*") if path.is_file() and path.name not in ours]


def _without_command(scale_folder: Path, published: Published) -> list[str]:
    """Say for each study how many of its runs are from before commands were recorded."""
    problems = []
    for study in published.studies.values():
        unknown = (study.run_ids & set(published.results)) - set(study.commands)
        if unknown:
            problems.append(
                f"{scale_folder}: study {study.study}: {len(unknown)} runs without the command that asked for"
                " them; give it again: finished runs are not repeated"
            )
    return problems


def _write(published: Published, folder: Path, pages: tuple[Path, ...]) -> None:
    """Write what everything else is made of.

    Args:
        pages: folders in which pages of shaded tokens are looked for, the first one first.
    """
    if published.results:
        append_jsonl(folder / "runs.jsonl", [run.to_json() for run in published.results.values()])
    for name in ("studies", "analysis"):
        (folder / name).mkdir()
    for study in published.studies.values():
        write_json(folder / "studies" / f"{study.study}.json", study.to_json())
    for analysis in published.analyses.values():
        path = folder / "analysis" / f"{analysis.run_id}.json"
        write_json(path, analysis.to_published_json(), indent=None)
        page = next((found for place in pages if (found := place / f"{path.stem}.html").is_file()), None)
        if page is not None and analysis.data.source == "synthetic":
            shutil.copyfile(page, path.with_suffix(".html"))
    if published.bench or published.parallel:
        bench = Bench(
            cases=sorted(published.bench, key=lambda case: case.key),
            parallel=sorted(published.parallel, key=lambda case: case.key),
        )
        write_json(folder / "bench.json", bench.to_json())
    if published.thinnings:
        curves = Thinnings(curves=sorted(published.thinnings, key=lambda curve: curve.key))
        write_json(folder / "thinning.json", curves.to_json())


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give an empty folder of the target's name that takes its place if all goes well.

    A kill between the two renames leaves the old folder beside it, from where `_restore` brings it back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new = scratch / target.name
        new.mkdir()
        yield new
        if target.exists():
            target.rename(scratch / _OLD)
        new.rename(target)
    finally:
        if (scratch / _OLD).exists() and not target.exists():
            (scratch / _OLD).rename(target)
        shutil.rmtree(scratch, ignore_errors=True)


def _restore(target: Path) -> None:
    """Remove what a killed writer left beside the target; if it was killed half-way, undo its first half."""
    for scratch in target.parent.glob(f".{target.name}.*"):
        if (scratch / _OLD).exists() and not target.exists():
            (scratch / _OLD).rename(target)
        shutil.rmtree(scratch, ignore_errors=True)
