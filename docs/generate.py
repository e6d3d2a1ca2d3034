"""Write the generated parts of README and documentation; with --check fail if one is stale.

A part stands between `<!-- NAME: written by `make docs` ... -->` and `<!-- end of NAME -->`.
"""

import csv
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import stdev

from repro.report.claims.verdicts import Judged, judged
from repro.report.figures import claims
from repro.report.page import VERDICTS, several
from repro.report.schemes import SchemeRow, eval_loss, performance, scheme_rows, spaced
from repro.report.statistics import detectable
from repro.results.published import Published

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PUBLISHED = ROOT / "results"


def floors() -> list[str]:
    """Return the floors of the code as a Markdown table, from the top down."""
    found = tomllib.loads((DOCS / "floors.toml").read_text(encoding="utf-8"))["floor"]
    heights = range(len(found), 0, -1)
    rows = (
        (f"{height}", ", ".join(f"`{room}`" for room in floor["rooms"]), floor["what"])
        for height, floor in zip(heights, found, strict=True)
    )
    return table(("floor", "rooms", "what is there"), rows)


def schemes(scale: str) -> list[str]:
    """Return Table 3 of a scale, with what stands behind its times."""
    heads = (
        *("task (metric)", "scheme", "time to equal loss", "95 %", "paper", "steps", "time per step"),
        *("FLOPs", "paper", "quality", "±", "two experts"),
    )
    return table(heads, map(_scheme, _read(scale, "table3_detail.csv")))


def _scheme(row: Mapping[str, str]) -> tuple[str, ...]:
    share = row["Share two experts"]
    return (
        f"{row['Task']} ({row['Metric']})" if row["Scheme"] == "dense" else "",
        row["Scheme"],
        _ratio(row["Norm. Training Time"]),
        row["Norm. Training Time interval"],
        _ratio(row["Norm. Training Time (paper)"]),
        _ratio(row["Steps to target"]),
        _ratio(row["Time per step"]),
        _ratio(row["Norm. FLOPs"]),
        _ratio(row["Norm. FLOPs (paper)"]),
        _short(row["Inference Performance"], 3),
        _short(row["Inference Performance interval"]),
        f"{float(share):.0%}" if share and row["Scheme"] == "adaptive" else "",
    )


def verdicts(*scales: str) -> list[str]:
    """Return the answer: how many claims hold at each scale with results, a picture, the main claims."""
    folders = {scale: PUBLISHED / scale for scale in scales if (PUBLISHED / scale / "runs.jsonl").is_file()}
    found = {scale: judged(Published.read(folder)) for scale, folder in folders.items()}
    lines = [f"* `{scale}`: {_counts(judgements)}" for scale, judgements in found.items()]
    for folder in folders.values():
        picture = folder / "figures" / f"{claims.FILE}.svg"
        if picture.is_file():
            lines += ["", f"![{claims.TITLE}]({picture.relative_to(ROOT)})", "", f"*{claims.SEE}*"]
            break
    heads = ("claim", "the paper", *(f"`{scale}`: ours, 95 % interval" for scale in found))
    main = ([one for one in judgements if one.claim.headline] for judgements in found.values())
    return [*lines, "", *table(heads, map(_main_claim, zip(*main, strict=True)))]


def _counts(judgements: Sequence[Judged]) -> str:
    counts: Counter[str] = Counter(one.judgement.verdict for one in judgements)
    named = ", ".join(f"{counts[verdict]} {several(verdict, counts[verdict])}" for verdict in VERDICTS)
    return f"of {len(judgements)} claims {named}"


def _main_claim(of_scales: Sequence[Judged]) -> tuple[str, ...]:
    claim = of_scales[0].claim
    return (f"{claim.text} ({claim.where})", of_scales[0].paper or claim.paper, *map(_verdict, of_scales))


def _verdict(one: Judged) -> str:
    verdict = f"**{one.judgement.verdict}**"
    return f"{verdict}: {one.ours} ({one.interval})" if one.ours else verdict


def spreads(scale: str) -> list[str]:
    """Return, for adaptive gating against top-2, the spread over seeds and the smallest effect to be seen."""
    heads = (
        *("task (metric)", "steps", "seeds", "time ratio, 95 %", "loss difference: standard deviation"),
        *("smallest effect", "metric difference: standard deviation", "smallest effect"),
    )
    rows = scheme_rows(Published.read(PUBLISHED / scale))
    return table(heads, (_spread(row) for row in rows if row.scheme == "adaptive"))


def _spread(row: SchemeRow) -> tuple[str, ...]:
    time = row.time_to_target
    differences = (row.paired(eval_loss), row.paired(performance))
    return (
        f"{row.title} ({row.metric})",
        str(row.runs[0].steps),
        str(len(row.runs)),
        spaced(time.interval) if time and time.interval else _ratio(str(row.norm_time)),
        *(cell for values in differences for cell in _deviation_and_effect(values)),
    )


def _deviation_and_effect(differences: Sequence[float]) -> tuple[str, str]:
    effect = detectable(differences)
    return ("", "") if effect is None else (f"{stdev(differences):.2g}", f"{effect:.2g}")


PARTS: Mapping[Path, Mapping[str, Callable[[], list[str]]]] = {
    DOCS / "architecture.md": {"floors": floors},
    DOCS / "measuring.md": {"spreads": partial(spreads, "mini")},
    ROOT / "README.md": {"table 3": partial(schemes, "mini"), "verdicts": partial(verdicts, "mini", "small")},
}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a Markdown table."""
    heads = tuple(heads)
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _read(scale: str, name: str) -> Iterable[dict[str, str]]:
    with (PUBLISHED / scale / name).open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _ratio(cell: str) -> str:
    """Round to hundredths; leave a bound as it is."""
    try:
        return f"{float(cell):.2f}"
    except ValueError:
        return cell


def _short(cell: str, digits: int = 2) -> str:
    """Round a number to so many significant digits, at least to units."""
    if not cell:
        return ""
    value = float(cell)
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def with_part(text: str, name: str, lines: Iterable[str]) -> str:
    """Return a page with fresh lines between the markers of a part."""
    markers = re.compile(rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    content = "\n".join(lines)
    fresh, found = markers.subn(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)
    assert found == 1, f"one part {name!r}"
    return fresh


def main() -> int:
    """Write or check; return the exit status."""
    status = 0
    for page, parts in PARTS.items():
        text = page.read_text(encoding="utf-8")
        fresh = text
        for name, part in parts.items():
            fresh = with_part(fresh, name, part())
        if fresh == text:
            continue
        if "--check" in sys.argv[1:]:
            print(f"{page.relative_to(ROOT)}: generated parts are stale; `make docs` writes them")
            status = 1
        else:
            page.write_text(fresh, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
