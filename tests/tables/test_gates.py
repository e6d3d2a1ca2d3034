"""The comparison of gates: the Pareto front by hand, the study's variants, the figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import compare_variants, make_published, make_result
from torch.nn import LayerNorm

from repro import plugins
from repro.moe.gates.base import load as load_gate
from repro.moe.initialize import sample_routing
from repro.report.figures import gates as figure
from repro.report.tables import gates
from repro.results.published import Published
from repro.results.run import RunResult
from repro.study.definition import load_study
from repro.study.plan import plan


def run(
    variant: str,
    seed: int,
    flops: float,
    quality: float | None,
    task: str = "sst2",
    experts: tuple[float, float] | None = None,
) -> RunResult:
    """A run with these experts per token in training and at evaluation; by default those of its budget."""
    trained, evaluated = experts or (float(variant.partition(" ")[2] or 1.5),) * 2
    return make_result(
        task,
        variant,
        seed,
        metric__value=quality,
        flops__per_token=flops,
        routing__mean_experts=trained,
        routing_eval__mean_experts=evaluated,
    )


def publish(variants: Mapping[str, Sequence[RunResult | str]], task: str = "sst2") -> Published:
    return compare_variants("gates", variants, task)


# Two seeds each, quality q +- d: the interval's half width is 12.706 d (t with one degree of freedom).
HAND: dict[str, list[RunResult | str]] = {
    "top-2": [run("top-2", 0, 8.0, 0.8), run("top-2", 1, 8.0, 0.8)],
    "top-1": [run("top-1", 0, 4.0, 0.7), run("top-1", 1, 4.0, 0.7)],
    "adaptive 1.25": [run("adaptive 1.25", 0, 5.0, 0.85), run("adaptive 1.25", 1, 5.0, 0.85)],
    "ratio 1.25": [run("ratio 1.25", 0, 5.0, 0.74), run("ratio 1.25", 1, 5.0, 0.76)],
    "relu 1.1": [run("relu 1.1", 0, 6.0, None)],
    "hash": ["sst2-hash-s0"],
}


def test_the_front_by_hand() -> None:
    rows = {(row["Gate"], row["Budget"]): row for row in gates.rows(publish(HAND))}
    assert all(tuple(row) == gates.COLUMNS for row in rows.values())
    # adaptive is cheaper and better than top-2, equally cheap and better than ratio; top-1 is the cheapest.
    assert {key: row["Pareto front"] for key, row in rows.items()} == {
        ("top-2", None): "no",
        ("top-1", None): "yes",
        ("adaptive", 1.25): "yes",
        ("ratio", 1.25): "no",
        ("relu", 1.1): None,
        ("hash", None): None,
    }
    # ratio is 0.11 and 0.09 behind adaptive: 0.1 +- 12.706 * 0.01, and more of one among two cheaper rows.
    assert rows["top-2", None]["Surely beaten"] == "yes"
    assert rows["ratio", 1.25]["Surely beaten"] == "no"
    assert rows["adaptive", 1.25]["Norm. FLOPs"] == 0.625
    assert rows["relu", 1.1]["Reason for empty cells"] is not None
    assert rows["hash", None]["Reason for empty cells"] == "sst2-hash-s0: not run"
    assert [note.split(":")[0] for note in gates.notes(publish(HAND))] == [
        "Sentiment analysis, relu 1.1",
        "Sentiment analysis, hash",
    ]


def test_rows_are_compared_by_seed() -> None:
    """Seeds differ by 0.3; in each adaptive is ahead by 0.1, but in the last of the other by -0.1."""
    ahead = {
        "top-2": [run("top-2", seed, 8.0, 0.2 + 0.3 * seed) for seed in range(3)],
        "adaptive 1.25": [run("adaptive 1.25", seed, 5.0, 0.3 + 0.3 * seed) for seed in range(3)],
    }
    assert [row["Surely beaten"] for row in gates.rows(publish(ahead))] == ["yes", "no"]
    split = ahead | {"top-2": [run("top-2", seed, 8.0, (0.2, 0.5, 1.0)[seed]) for seed in range(3)]}
    assert [row["Surely beaten"] for row in gates.rows(publish(split))] == ["no", "no"]


def test_one_of_many_is_ahead_by_chance() -> None:
    """0.1 +- 0.01 over 3 seeds: t = 17.3, and p = 0.0033, less than 5 % over 10 peers but not over 20."""

    def beaten(peers: int) -> object:
        runs: dict[str, list[RunResult | str]] = {
            "top-2": [run("top-2", seed, 8.0, 0.5) for seed in range(3)]
        }
        for number in range(peers):
            lead = 0.1 if number == 0 else -0.1
            qualities = [0.5 + lead + step for step in (-0.01, 0.0, 0.01)]
            name = f"ratio {1.5 + number / 1000}"
            runs[name] = [run(name, seed, 5.0, quality) for seed, quality in enumerate(qualities)]
        return gates.rows(publish(runs))[0]["Surely beaten"]

    assert (beaten(10), beaten(20)) == ("yes", "no")


def test_a_lower_perplexity_is_better() -> None:
    runs = {
        "top-2": [run("top-2", 0, 8.0, 10.0, "wikitext")],
        "adaptive 1.5": [run("adaptive 1.5", 0, 6.0, 12.0, "wikitext")],
        "relu 1.75": [run("relu 1.75", 0, 7.0, 13.0, "wikitext")],
    }
    found = {row["Gate"]: row["Pareto front"] for row in gates.rows(publish(runs, "wikitext"))}
    assert found == {"top-2": "yes", "adaptive": "yes", "relu": "no"}


@pytest.mark.parametrize(
    ("experts", "missed"),
    [((1.36, 1.14), False), ((1.41, 1.25), True), ((1.25, 1.09), True), ((0.02, 0.02), True)],
)
def test_a_row_off_its_budget_is_marked_and_on_no_front(experts: tuple[float, float], missed: bool) -> None:
    """By more than 0.15 experts, in training or at evaluation. It would else stand alone on the front."""
    runs: dict[str, list[RunResult | str]] = {
        "top-2": [run("top-2", 0, 8.0, 0.8)],
        "relu 1.25": [run("relu 1.25", 0, 4.0, 0.9, experts=experts)],
    }
    rows = {row["Gate"]: row for row in gates.rows(publish(runs))}
    assert (rows["relu"]["Mean experts"], rows["relu"]["Mean experts at evaluation"]) == experts
    assert rows["relu"]["Misses budget"] == ("yes" if missed else "no")
    assert rows["top-2"]["Misses budget"] is None
    assert rows["relu"]["Pareto front"] == ("no" if missed else "yes")
    assert rows["top-2"]["Pareto front"] == ("yes" if missed else "no")
    shown = {str(row["Gate"]): row["Front"] for row in gates.shown(publish(runs))}
    assert shown["relu 1.25"] == ("off budget" if missed else "yes")
    note = "1 rows miss their budget by more than 0.15 experts: on no front"
    assert (note in gates.notes(publish(runs))) is missed
    drawn = figure.draw(publish(runs))
    assert drawn is not None
    front = np.asarray(drawn.axes[0].lines[-1].get_xydata())
    assert front.tolist() == ([[8.0, 0.8]] if missed else [[4.0, 0.9]])


def test_a_row_off_its_budget_beats_no_other() -> None:
    """Twice: better and cheaper by more than both intervals, which are 0."""
    runs: dict[str, list[RunResult | str]] = {
        "top-2": [run("top-2", seed, 8.0, 0.8) for seed in (0, 1)],
        "relu 1.25": [run("relu 1.25", seed, 4.0, 0.9, experts=(3.0, 1.25)) for seed in (0, 1)],
    }
    assert [row["Surely beaten"] for row in gates.rows(publish(runs))] == ["no", "no"]


def test_the_figure_has_a_series_for_every_gate_and_the_front() -> None:
    made = figure.draw(publish(HAND))
    assert made is not None
    (axes,) = made.axes
    assert set(axes.get_legend_handles_labels()[1]) == {"top-2", "top-1", "adaptive", "ratio"}
    front = np.asarray(axes.lines[-1].get_xydata())
    assert front.tolist() == [[4.0, 0.7], [5.0, 0.85]]
    assert axes.get_xlabel() == "FLOPs per token"
    assert figure.draw(make_published()) is None


# --- the study ---------------------------------------------------------------------------------------

VARIANTS = load_study("gates").variants


def test_every_gate_is_in_the_study_at_every_budget() -> None:
    anchors = {"dense", "top_k", "hash"}
    assert {plugins.resolve("gates", variant.gate)[0] for variant in VARIANTS.values()} == set(
        plugins.names("gates")
    )
    for gate in set(plugins.names("gates")) - anchors:
        name = gate.replace("_", "-")
        assert {f"{name} {budget}" for budget in ("1.1", "1.25", "1.5", "1.75")} <= set(VARIANTS)


def test_adamoe_with_the_weights_of_the_others_is_else_the_same() -> None:
    for budget in ("1.1", "1.25", "1.5", "1.75"):
        raw, plain = VARIANTS[f"adamoe-raw {budget}"], VARIANTS[f"adamoe {budget}"]
        assert (raw.gate, raw.settings) == ("adamoe", plain.settings | {"gate.combine": "raw"})


def test_top_any_has_the_gradient_of_its_paper_too() -> None:
    for budget in ("1.1", "1.25", "1.5", "1.75"):
        paper, released = VARIANTS[f"top-any-st {budget}"], VARIANTS[f"top-any {budget}"]
        assert paper.settings == released.settings | {"gate.gradient": "straight-through"}


def test_all_gates_have_one_order_of_data_and_one_scale(tmp_path: Path) -> None:
    runs = plan("gates", tasks=["sst2"], seeds=1, scale="mini", data=None, overrides={}, results=tmp_path)
    assert {one.config.training.curriculum for one in runs} == {"random"}
    assert {one.config.experts.scale for one in runs if one.config.gate != "dense"} == {"fitted"}


def test_all_variants_can_be_planned_where_they_can_stand(tmp_path: Path) -> None:
    def planned(task: str) -> set[str]:
        runs = plan("gates", tasks=[task], seeds=1, scale="mini", data=None, overrides={}, results=tmp_path)
        assert len({one.config.run_id for one in runs}) == len(runs)
        return {one.variant for one in runs}

    assert planned("sst2") == set(VARIANTS)
    for task in ("wikitext", "wmt19"):
        assert set(VARIANTS) - planned(task) == {label for label in VARIANTS if "expert-choice" in label}


@pytest.mark.parametrize(
    "label", [label for label in VARIANTS if label.split()[0] in ("adaptive", "adaptive-k", "top-p")]
)
def test_thresholds_give_the_budget_to_a_fresh_gate(label: str) -> None:
    variant = VARIANTS[label]
    module = load_gate(variant.gate)
    assert module.Gate is not None
    torch.manual_seed(0)
    config = module.Config(**{key.removeprefix("gate."): value for key, value in variant.settings.items()})
    routing = sample_routing(module.Gate(config, 128, 16), LayerNorm(128))
    assert float(routing.count_T.double().mean()) == pytest.approx(float(label.split()[1]), abs=0.03)


def limits(higher: bool, values: list[float]) -> tuple[float, float]:
    """Those of the axis of quality, for gates with these qualities."""
    task = "sst2" if higher else "wikitext"
    runs = {f"ratio {n}": [run(f"ratio {n}", 0, 4.0 + n, value, task)] for n, value in enumerate(values)}
    drawn = figure.draw(publish(runs, task))
    assert drawn is not None
    low, high = drawn.axes[0].get_ylim()
    return low, high


def test_what_is_far_worse_than_the_others_does_not_squeeze_them() -> None:
    """Quartiles of 1 to 8 and 40 (exclusive): 2.5 and 7.5, so up to 22.5 is shown."""
    usual = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert limits(False, [*usual, 40.0]) == pytest.approx((0.65, 8.35))  # 5 % of 7 on either side
    assert limits(False, [*usual, 22.0])[1] > 22
    assert limits(True, [*usual, 40.0])[1] > 40  # far better: the axis reaches there
    assert limits(True, [*usual, -40.0]) == pytest.approx((0.65, 8.35))
    assert limits(False, [1.0, 2.0, 40.0])[1] > 40  # too few to tell
