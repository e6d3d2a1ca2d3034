"""Where the time of a training step goes, and the steps of several gates beside each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from command_line import CommandLine
from factories import make_step

from repro.bench.profile import PARTS, split_steps
from repro.cli import step_benches
from repro.training import loop as loop_parts
from repro.training import trainer


@dataclass
class Event:
    """What is read of a profiler's event."""

    name: str
    self_cpu_time_total: float  # microseconds
    cpu_children: list["Event"] = field(default_factory=list)
    cpu_parent: "Event | None" = None

    def __post_init__(self) -> None:
        for child in self.cpu_children:
            child.cpu_parent = self


def test_time_of_a_step_goes_to_the_innermost_part() -> None:
    forward = Event("repro: experts", 10, [Event("_GroupedFFN", 100, [Event("aten::index_select", 7)])])
    backward = Event("_GroupedFFNBackward", 200, [Event("aten::embedding_bag", 4, [Event("aten::copy_", 3)])])
    step = Event(
        "repro: step",
        1,
        [
            Event("repro: data", 20, [Event("aten::cat", 5)]),
            Event("aten::linear", 40, [Event("repro: router", 8), Event("aten::index_select", 2)]),
            forward,
            backward,
            ratios := Event("repro: records", 6),
            Event("repro: optimizer", 30),
        ],
    )
    after = Event("repro: records", 50, [Event("aten::sum", 1)])
    (seconds,) = split_steps([Event("aten::mm", 1000), step, ratios, after])
    expected = {
        "data": 25,
        "attention and the rest": 1 + 40 + 2,
        "router": 8,
        "dispatch and combine": 7 + 4 + 3,
        "experts": 10 + 100 + 200,
        "optimiser": 30,
        "records": 6 + 50 + 1,
    }
    assert {part: round(1e6 * value) for part, value in seconds.items()} == expected


def test_a_step_from_the_command_line(cli: CommandLine) -> None:
    printed = cli("bench", "--task", "sst2", "--steps", "2", "--json").json()
    rows = {row["part"]: row for row in printed["parts"]}
    assert list(rows) == [*PARTS, "step"]
    assert all(row["ms"] > 0 for row in rows.values())
    assert sum(row["share"] for row in rows.values()) == pytest.approx(2)
    assert rows["experts"]["share"] > rows["data"]["share"]


def test_steps_that_are_profiled(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three to warm up and those asked for: no cooldown, and none beyond; the loss at both ends alone."""
    measured, losses = [], []

    def split(events: Iterable[Any]) -> list[dict[str, float]]:
        measured.append(split_steps(events))
        return measured[-1]

    def measure(loop: loop_parts.Loop) -> None:
        losses.append(loop.state.step)
        loop_parts.measure(loop)

    monkeypatch.setattr(step_benches, "split_steps", split)
    monkeypatch.setattr(trainer, "measure", measure)
    assert cli("bench", "--task", "sst2", "--steps", "2", "--json").status == 0
    assert [len(steps) for steps in measured] == [3 + 2]
    assert losses == [0, 3 + 2]


def test_gates_take_turns(cli: CommandLine) -> None:
    answer = cli(
        "bench", "--task", "sst2", "--gate", "dense,top-2", "--steps", "2", "--repeats", "2", "--json"
    )
    assert answer.status == 0, answer.err
    turns = [line for line in answer.err.splitlines() if line.startswith("[")]
    assert turns == [f"[{n}/2] sst2 {gate}" for n in (1, 2) for gate in ("dense", "top-2")]
    dense, top_2 = answer.json()["gates"]
    assert (dense["gate"], dense["ratio"], dense["experts"]) == ("dense", 1.0, None)
    assert (top_2["gate"], top_2["experts"]) == ("top-2", 2.0)
    assert top_2["ratio"] == pytest.approx(top_2["ms"] / dense["ms"])


def test_lines_that_are_packed_give_an_example_to_evaluate(cli: CommandLine) -> None:
    answer = cli("bench", "--task", "wikitext", "--steps", "2", "--json")
    assert answer.status == 0, answer.err
    assert answer.json()["steps"] == 2


def test_times_of_a_gate_by_hand() -> None:
    """Quartiles of 1, 2, 3, 4, 5 s (exclusive): 1.5, 3, 4.5."""
    steps = [make_step(seconds=float(n), mean_experts=1.0 + n % 2) for n in (3, 1, 5, 2, 4)]
    first = [make_step(seconds=2.0)] * 3
    assert step_benches._step_row(steps, first) == {
        "ms": 3000.0,
        "spread": 3000.0,
        "ratio": 1.5,
        "experts": 1.6,
    }
    assert step_benches._step_row(first, first)["experts"] is None


def test_an_unknown_gate_among_several(cli: CommandLine) -> None:
    done = cli("bench", "--task", "sst2", "--gate", "dense,top2k")
    assert done.status == 2
    assert "'top2k'" in done.err


def test_a_step_of_an_unknown_task(cli: CommandLine) -> None:
    done = cli("bench", "--task", "sst3")
    assert done.status == 2
    assert "'sst3'" in done.err
