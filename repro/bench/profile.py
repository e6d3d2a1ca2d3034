"""Split the time of training steps into their parts, from a profile."""

from collections.abc import Iterable
from typing import Any

from repro.moe import layer
from repro.training import trainer

PARTS = (
    *("data", "attention and the rest", "router", "dispatch and combine", "experts", "optimiser"),
    "records",
)
"""Where the time of a training step goes. Of the records, only the ratios are within its clock."""


_SCOPES = {
    trainer.DATA: "data",
    trainer.OPTIMIZER: "optimiser",
    trainer.RECORDS: "records",
    layer.ROUTER: "router",
    layer.EXPERTS: "experts",
    "_GroupedFFNBackward": "experts",
}


_MOVING = {"aten::index_select", "aten::index_copy_", "aten::embedding_bag", "aten::argsort", "aten::cumsum"}
"""Operations of the grouped back-end that only bring rows into order, or sum them."""


def split_steps(events: Iterable[Any]) -> list[dict[str, float]]:
    """Sum the seconds of every part of each training step and its records, from the events of a CPU profile.

    Time counts for the innermost part around it. The backward pass of the router belongs to "the
    rest", that of the experts to the experts.
    """

    def walk(event: Any, part: str, seconds: dict[str, float]) -> None:
        part = _SCOPES.get(event.name, part)
        if part == "experts" and event.name in _MOVING:
            part = "dispatch and combine"
        seconds[part] += event.self_cpu_time_total / 1e6
        for child in event.cpu_children:
            walk(child, part, seconds)

    steps: list[dict[str, float]] = []
    for event in events:
        if event.name == trainer.STEP:
            steps.append(dict.fromkeys(PARTS, 0.0))
            walk(event, "attention and the rest", steps[-1])
        elif event.name == trainer.RECORDS and event.cpu_parent is None:
            walk(event, "records", steps[-1])
    return steps
