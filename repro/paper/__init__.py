"""The paper's own numbers, as data, so that every table of ours can stand beside them."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def tables() -> dict[str, Any]:
    """Everything in `tables.toml`: tables 1 and 3 to 6, the shares of 3.1 and 4.4, AdaMoE's headline."""
    text = (Path(__file__).parent / "tables.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def tasks() -> list[str]:
    """Return the tasks of the paper, by our names, in the order of its Table 3; there are others, too."""
    return list(tables()["table3"])


def scheme(task: str, gate: str) -> dict[str, float] | None:
    """Time, FLOPs and performance of a row of Table 3; None if the paper has no such row."""
    row: dict[str, float] | None = tables()["table3"].get(task, {}).get(gate)
    return row


def layer_time(share_top1: float) -> float | None:
    """Time of a layer at a share of one-expert tokens, relative to top-2 (Table 1); None if not printed."""
    table = tables()["table1"]
    times: dict[float, float] = dict(zip(table["share_top1"], table["layer_time"], strict=True))
    return (times | {0.0: 1.0}).get(share_top1)
