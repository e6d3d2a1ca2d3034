"""Write the generated parts of README and documentation; with --check fail if one is stale.

A part stands between `<!-- NAME: written by `make docs` ... -->` and `<!-- end of NAME -->`.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lanes
import overview
import scales
import spread
from fields import files_of_run, keys_of

from repro.report.claims.definition import Subject

RESULT = ("RunResult", "Metric", "Flops", "RoutingSummary", "CurvePoint", "Curriculum", "Parameters", "Data")
ANALYSIS = (
    *("Analysis", "AnalyzedData", "LayerAnalysis", "StackAnalysis", "Counts", "Words", "WordCounts"),
    *("Activations", "TokenActivation", "TrainingShares", "SampleStack", "TokenExpert"),
)
BENCH = ("Bench", "BenchCase", "LayerTiming", "ParallelCase", "ParallelTiming", "SpreadModel")
DOCS = Path(__file__).parent
ROOT = DOCS.parent
PUBLISHED = ROOT / "results" / "published"


def floors() -> list[str]:
    """Return the floors of the code as a Markdown table, from the top down."""
    found = tomllib.loads((DOCS / "floors.toml").read_text(encoding="utf-8"))["floor"]
    heights = range(len(found), 0, -1)
    rows = (
        (f"{height}", ", ".join(f"`{room}`" for room in floor["rooms"]), floor["what"])
        for height, floor in zip(heights, found, strict=True)
    )
    return scales.table(("floor", "rooms", "what is there"), rows)


def memory() -> list[str]:
    """Return what a process of eight holds of each model of scale `paper`, in every way."""
    # Only here: it loads torch.
    from repro.cli.memories import memory_rows
    from repro.run.memory import GB, Memory

    def fitting(row: Mapping[str, Any]) -> str:
        parts = {name: row[name] for name in ("weights", "gradients", "activations")}
        held = Memory(**parts, optimizer=row["optimiser"])
        return ", ".join(str(size) for size in (40, 80) if held.fits(size * GB))

    _, rows = memory_rows("paper", ROOT / "results", 8, 0)
    pairs: dict[tuple[object, object], list[Mapping[str, Any]]] = {}
    for row in rows:
        pairs.setdefault((row["task"], row["way"]), []).append(row)
    heads = (
        *("task", "way", "weights", "gradients", "optimiser", "activations", "total", "fits"),
        *("activations, checkpointing", "total", "fits"),
    )
    sizes = ("weights", "gradients", "optimiser", "activations", "total")
    return scales.table(
        heads,
        (
            (
                *(str(key) for key in pair),
                *(f"{kept[size] / GB:.1f}" for size in sizes),
                fitting(kept),
                *(f"{again[size] / GB:.1f}" for size in sizes[-2:]),
                fitting(again),
            )
            for pair, (kept, again) in pairs.items()
        ),
    )


OF_SCALE: Mapping[str, Callable[[str], list[str]]] = {
    "verdicts": scales.judgements,
    "table 3": scales.schemes,
    "spreads": scales.spreads,
    "table 4": scales.words,
    "table 5": partial(overview.shown, "table5_detail"),
    "table 6": partial(overview.shown, "table6_detail"),
    "gates": partial(overview.shown, "gates"),
    "weights": partial(overview.shown, "weights"),
    "what explains what": overview.explained,
    "adamoe": partial(overview.shown, "adamoe"),
    "thinning": partial(overview.shown, "thinning"),
    "learning rates": scales.rates,
    "table 1": scales.layers,
    "models": overview.models,
    "cost": overview.cost,
    "circumstances": scales.circumstances,
}
"""Parts that the page of a scale may have."""
SCALES = ("mini", "small")
"""Scales with a page; what of one is not published is said to be not measured."""
CLAIMS: Mapping[str, Subject] = {
    "claims about time": "time",
    "claims about quality": "quality",
    "claims about operations": "FLOPs",
    "claims about tokens": "tokens and layers",
    "claims about AdaMoE": "AdaMoE",
}
"""Part of the replication report -> subject of its claims."""
PARTS: Mapping[Path, Mapping[str, Callable[[], list[str]]]] = {
    DOCS / "architecture.md": {"floors": floors},
    DOCS / "devices.md": {"memory": memory},
    DOCS / "performance.md": {
        "spread layers": lambda: scales.table(*spread.layers(PUBLISHED / "mini" / "parallel.csv")),
        "figures of the paper's machine": lambda: scales.table(*spread.assumed()),
        "needed": lambda: scales.table(*spread.needed()),
        "layers": partial(scales.layers, "mini"),
        "implementations": partial(scales.implementations, "mini"),
        "lanes": lambda: scales.table(*lanes.fairness()),
    },
    DOCS / "results.md": {
        "files of a run": files_of_run,
        "result.json": partial(keys_of, *RESULT, "Environment"),
        "records": partial(
            keys_of, "StepRecord", "EvalRecord", "RoutingRecord", "ExchangeRecord", "Exchange"
        ),
        "study": partial(keys_of, "Study"),
        "analysis.json": partial(keys_of, *ANALYSIS),
        "bench.json": partial(keys_of, *BENCH),
        "thinning.json": partial(keys_of, "Thinnings", "Thinning", "ThinPoint", "RowsRead"),
        "checks.json": partial(keys_of, "GpuChecks", "GpuCheck"),
        "jobs": partial(keys_of, "Submission", "Failure"),
    },
    ROOT / "README.md": {
        "verdicts": partial(scales.answer, *SCALES),
    },
    DOCS / "replication-report.md": {
        "verdicts": partial(scales.answer, *SCALES, page=DOCS),
        "models": partial(overview.models, *SCALES),
        "cost": partial(overview.cost, *SCALES),
        "missing": partial(overview.missing, *SCALES),
        "undecided": partial(overview.undecided, *SCALES),
        **{name: partial(overview.claims_about, subject, *SCALES) for name, subject in CLAIMS.items()},
        **{f"{name}, {scale}": partial(part, scale) for scale in SCALES for name, part in OF_SCALE.items()},
        "layer": partial(scales.layers, "mini", ("768/3072", "fp32")),
    },
    **{
        DOCS / f"results-{scale}.md": {name: partial(part, scale) for name, part in OF_SCALE.items()}
        for scale in SCALES
    },
}


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
        unknown = set(re.findall(r"<!-- ([^:\n]+): written by `make docs`", text)) - set(parts)
        assert not unknown, f"{page}: no such parts: {', '.join(unknown)}"
        for name, part in parts.items():
            if f"<!-- {name}: " in text:
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
