"""What stands behind Table 4: every word, category, part, place and frequency band with its test."""

from collections.abc import Sequence

from repro import paper
from repro.report.analyses import Item, analyzed_tasks, items, layer_shares, share_of, stacks
from repro.report.schemes import title
from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.results.analysis import Analysis
from repro.results.published import Published

FILE = "table4_detail.csv"
COLUMNS = (
    "Task",
    "Kind",
    "Stack",
    "Item",
    "Tokens",
    "Occurrences",
    "Share two experts",
    "Share two experts (any subword)",
    "Base rate",
    "Difference",
    "p",
    "q",
    "Runs above base rate",
    "Runs",
    "Share two experts by layer",
    "Run ids",
    "Paper",
)


def rows(published: Published) -> list[Row]:
    """Derive for each task a row of kind `all` per stack, with run ids and the paper's words, then items."""
    derived: list[Row] = []
    for task, analyses in analyzed_tasks(published).items():
        derived += [_stack_row(task, stack, analyses) for stack in stacks(analyses)]
        tested = items(analyses)
        for kind in dict.fromkeys(item.kind for item in tested):
            same = [item for item in tested if item.kind == kind]
            # Positions, lengths and ranks keep their order; what has a name is sorted by share.
            if kind in ("word", "category"):
                same.sort(key=lambda item: (-(item.share or 0), item.stack, item.name))
            derived += [_row(task, item) for item in same]
    return derived


def _stack_row(task: str, stack: str, analyses: Sequence[Analysis]) -> Row:
    runs = [analysis for analysis in analyses if stack in analysis.stacks]
    tokens = [run.stacks[stack].all for run in runs]
    words = [run.stacks[stack].words.all for run in runs]
    share = rounded(share_of(tokens))
    printed: str | None = paper.tables()["table4"].get(task)
    values: Row = {
        "Task": title(task),
        "Kind": "all",
        "Stack": stack,
        "Item": "all",
        "Tokens": sum(counts.tokens for counts in tokens),
        "Occurrences": sum(counts.tokens for counts in words),
        "Share two experts": share,
        "Share two experts (any subword)": rounded(share_of(words)),
        "Base rate": share,
        "Runs": len(runs),
        "Share two experts by layer": _listed(layer_shares(tokens)),
        "Run ids": " ".join(run.run_id for run in runs),
        "Paper": printed,
    }
    return {column: values.get(column) for column in COLUMNS}


def _row(task: str, item: Item) -> Row:
    values = (
        title(task),
        item.kind,
        item.stack,
        item.name,
        item.tokens,
        item.occurrences,
        rounded(item.share),
        rounded(item.word_share),
        rounded(item.base),
        rounded(item.difference),
        rounded(item.p, 3),
        rounded(item.q, 3),
        item.above,
        item.runs,
        _listed(item.by_layer),
        None,
        None,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _listed(shares: Sequence[float | None]) -> str:
    return " ".join("-" if share is None else f"{share:.4f}" for share in shares)
