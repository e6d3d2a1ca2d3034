"""What stands behind Table 4: every word, category, part, place and frequency band with its test."""

from typing import Any

from repro import paper
from repro.records import Published
from repro.tables._analyses import Item, analyzed_tasks, items, layer_shares, share_of
from repro.tables._schemes import title
from repro.tables._statistics import rounded

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


def rows(published: Published) -> list[dict[str, Any]]:
    """For each task a row of kind `all` per stack, with run ids and the paper's words, then its items."""
    found = []
    for task, analyses in analyzed_tasks(published).items():
        found += _base_rows(task, analyses)
        every = items(analyses)
        for kind in dict.fromkeys(item.kind for item in every):
            same = [item for item in every if item.kind == kind]
            # Places keep their order; what has a name is sorted by share.
            if kind in ("word", "category"):
                same.sort(key=lambda item: (-(item.share or 0), item.stack, item.name))
            found += [_row(task, item) for item in same]
    return found


def _base_rows(task: str, analyses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stacks = dict.fromkeys(stack for analysis in analyses for stack in analysis["stacks"])
    found = []
    for stack in stacks:
        having = [analysis for analysis in analyses if stack in analysis["stacks"]]
        counts = [analysis["stacks"][stack]["all"] for analysis in having]
        share = rounded(share_of(counts))
        values = {
            "Task": title(task),
            "Kind": "all",
            "Stack": stack,
            "Item": "all",
            "Tokens": sum(entry[0] for entry in counts),
            "Occurrences": sum(one["stacks"][stack]["words"]["all"][0] for one in having),
            "Share two experts": share,
            "Share two experts (any subword)": rounded(
                share_of([one["stacks"][stack]["words"]["all"] for one in having])
            ),
            "Base rate": share,
            "Runs": len(having),
            "Share two experts by layer": _listed(layer_shares(counts)),
            "Run ids": " ".join(one["run_id"] for one in having),
            "Paper": paper.tables()["table4"].get(task),
        }
        found.append({column: values.get(column) for column in COLUMNS})
    return found


def _row(task: str, item: Item) -> dict[str, Any]:
    known = item.share is not None and item.base is not None
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
        rounded((item.share or 0) - (item.base or 0)) if known else None,
        rounded(item.p, 3),
        rounded(item.q, 3),
        item.above,
        item.runs,
        _listed(item.by_layer),
        None,
        None,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _listed(values: Any) -> str:
    return " ".join("-" if value is None else f"{value:.4f}" for value in values)
