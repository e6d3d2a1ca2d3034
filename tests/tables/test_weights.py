"""The study of weights by hand: paired differences, the parts of a gap, what the closing sentence says."""

from collections.abc import Mapping, Sequence

import pytest
from factories import compare_variants, make_published, make_result
from rich.console import Console

from repro.cli.console import plain_table
from repro.report import weights as parts
from repro.report.tables import weights
from repro.results.published import Published
from repro.results.run import RunResult
from repro.study.definition import load_study

VARIANTS = load_study("weights").variants


def publish(losses: Mapping[str, Sequence[float]], task: str = "wikitext") -> Published:
    """Publish runs with these validation losses, by seed."""
    runs: dict[str, list[RunResult | str]] = {
        variant: [
            make_result(task, variant, seed, eval_loss=loss, output_scale=0.3)
            for seed, loss in enumerate(of_seed)
        ]
        for variant, of_seed in losses.items()
    }
    return compare_variants("weights", runs, task)


# Three seeds, t = 4.303 with two degrees of freedom. Behind top-2: 1.0 +- 0, with fitted layers 0.2, 0.1 and
# 0.3: mean 0.2, deviation 0.1, half width 4.303 * 0.1 / sqrt(3) = 0.25. The rest is 0.8, 0.9, 0.7.
# Behind hash: 0.5; straight-through 0.5, 0.6 and 0.4 below raw, so behind hash by 0.0, -0.1 and 0.1.
HAND = {
    "top-2 raw": [2.0, 3.0, 4.0],
    "top-2 fitted": [1.5, 2.5, 3.5],
    "top-1 raw": [3.0, 4.0, 5.0],
    "top-1 fitted": [1.7, 2.6, 3.8],
    "top-1 straight-through": [2.5, 3.4, 4.6],
    "hash 1": [2.5, 3.5, 4.5],
}


def test_differences_are_paired_by_seed() -> None:
    rows = {row["Variant"]: row for row in weights.rows(publish(HAND))}
    assert all(tuple(row) == weights.COLUMNS for row in rows.values())
    row = rows["top-1 fitted"]
    # 1.7 - 2, 2.6 - 3, 3.8 - 4: mean -0.3, deviation 0.1. The losses themselves are apart by 1.
    assert row["Loss difference"] == -0.3
    assert row["Loss difference interval"] == 0.25
    assert row["Validation loss"] == 2.7
    assert row["Validation loss by seed"] == "1.7 2.6 3.8"
    assert row["Output scale at start"] == 0.3
    assert (rows["top-2 raw"]["Loss difference"], rows["top-2 raw"]["Loss difference interval"]) == (0.0, 0.0)
    shown = {row["Variant"]: row for row in weights.shown(publish(HAND))}
    assert (shown["top-1 fitted"]["Difference"], shown["top-1 fitted"]["±"]) == (-0.3, 0.25)


def test_a_seed_that_one_of_them_lacks_is_left_out() -> None:
    (row,) = [
        row for row in weights.rows(publish(HAND | {"hash 1": [2.5, 3.5]})) if row["Variant"] == "hash 1"
    ]
    # 2.5 - 2 and 3.5 - 3.
    assert row["Loss difference"] == 0.5
    without = {variant: losses for variant, losses in HAND.items() if variant != "top-2 raw"}
    assert {row["Loss difference"] for row in weights.rows(publish(without))} == {None}


def test_the_parts_of_a_gap_by_hand() -> None:
    (rows,) = parts.tasks(publish(HAND))
    behind_top_2, _, behind_hash = parts.GAPS
    assert parts.summed(rows, behind_top_2.whole) == pytest.approx([1.0, 1.0, 1.0])
    assert parts.summed(rows, behind_top_2.parts["rule"]) == pytest.approx([0.2, 0.1, 0.3])
    assert parts.summed(rows, behind_top_2.parts["scale"]) == pytest.approx([0.8, 0.9, 0.7])
    assert parts.summed(rows, behind_hash.parts["scale"]) == pytest.approx([0.5, 0.6, 0.4])
    assert parts.summed(rows, behind_hash.parts["routing drift"]) == pytest.approx([0.0, -0.1, 0.1])


@pytest.mark.parametrize("gap", parts.GAPS, ids=lambda gap: gap.name)
def test_parts_add_up_to_the_gap_and_are_variants_of_the_study(gap: parts.Gap) -> None:
    total: dict[str, int] = {}
    for contrast in gap.parts.values():
        for variant, factor in contrast.items():
            total[variant] = total.get(variant, 0) + factor
    assert {variant: factor for variant, factor in total.items() if factor} == gap.whole
    assert total.keys() | gap.whole.keys() <= VARIANTS.keys()


def test_the_sentences_by_hand() -> None:
    title = "Text completion"
    assert weights.notes(publish(HAND))[-3:] == [
        f"{title}, top-1 behind top-2 by +1 ± 0: scale +0.8 ± 0.25, rule +0.2 ± 0.25 (undecided)",
        f"{title}, top-1 behind hash by +0.5 ± 0: scale +0.5 ± 0.25, routing drift +0 ± 0.25 (undecided)",
        f"What explains what: top-1 behind top-2: scale explains it on {title}; rule undecided on {title}."
        f" top-1 behind hash: scale explains it on {title}; routing drift undecided on {title}.",
    ]


@pytest.mark.parametrize(
    ("part", "gap", "word"),
    [
        ([0.8, 0.9, 0.7], [1.0, 1.0, 1.0], "explains"),
        ([-0.8, -0.9, -0.7], [-1.0, -1.0, -1.0], "explains"),
        ([0.8, 0.9, 0.7], [-1.0, -1.0, -1.0], "works against"),
        ([0.2, 0.1, 0.3], [1.0, 1.0, 1.0], "undecided"),  # 0.2 +- 0.25
        ([0.26, 0.16, 0.36], [1.0, 1.0, 1.0], "explains"),  # 0.26 +- 0.25
        ([0.8], [1.0], "undecided"),  # one seed has no interval
    ],
)
def test_the_word_of_a_part(part: Sequence[float], gap: Sequence[float], word: str) -> None:
    assert parts.word(part, gap) == word


def test_one_seed_decides_nothing() -> None:
    notes = weights.notes(publish({variant: losses[:1] for variant, losses in HAND.items()}))
    assert "scale +0.8 (one seed, undecided)" in notes[-3]
    assert "explains it" not in notes[-1]


def test_no_study_no_rows_and_no_gap_no_sentence() -> None:
    empty = make_published()
    assert (weights.rows(empty), weights.shown(empty), weights.notes(empty)) == ([], [], [])
    assert not any("explains" in note for note in weights.notes(publish({"top-2 raw": [2.0]})))


def test_what_is_missing_has_its_reason() -> None:
    runs: dict[str, list[RunResult | str]] = {
        "top-2 raw": [make_result("wikitext", "top-2 raw")],
        "hash 1": ["x-s0"],
    }
    published = compare_variants("weights", runs, "wikitext", {"x-s0": "MemoryError: big"})
    assert weights.rows(published)[1]["Reason for empty cells"] == "x-s0: MemoryError: big"
    assert weights.notes(published)[-1].endswith("hash 1: x-s0: MemoryError: big")


def test_what_differs_between_the_variants_is_what_their_names_say() -> None:
    kept: dict[str, dict[str, object]] = {
        "hash 1": {},
        "hash fitted": {"experts.scale": "fitted"},
        "hash 0.39": {"gate.weight": 0.39},
        "hash 0.25": {"gate.weight": 0.25},
        "dense 1": {},
        "dense 0.3": {"gate.ffn_scale": 0.3},
    }
    for scheme in ("top-2", "top-1", "adaptive"):
        kept[f"{scheme} raw"] = {}
        kept[f"{scheme} fitted"] = {"experts.scale": "fitted"}
        for combine in ("renormalised", "straight-through"):
            kept[f"{scheme} {combine}"] = {"gate.combine": combine}
    assert kept.keys() == VARIANTS.keys()
    for label, settings in kept.items():
        assert (VARIANTS[label].gate, VARIANTS[label].settings) == (label.partition(" ")[0], settings)
    assert load_study("weights").settings == {
        "training.curriculum": "random",
        "gate.combine": "raw",
        "experts.scale": "none",
    }


def test_the_widest_row_fits_into_80_columns() -> None:
    row = weights.shown(publish(HAND))[0]
    wide = {**row, "Task": "Summarization", "Variant": "adaptive straight-through", "Scale": 0.26}
    console = Console(width=80, highlight=False, soft_wrap=True)
    with console.capture() as capture:
        console.print(
            plain_table([{**wide, "Loss": 2.34567, "Difference": -0.123, "±": 0.0123, "Value": 12.3456}])
        )
    assert all(len(line) <= 80 for line in capture.get().splitlines())


def test_of_a_gap_that_may_be_none_nothing_is_explained() -> None:
    # t = 4.303 with two degrees of freedom: 1 +- 4.303 * 1 / sqrt(3) contains 0, 3 +- 2.48 does not.
    told, not_told = [2.0, 3.0, 4.0], [0.0, 1.0, 2.0]
    assert parts.word(told, told) == "explains"
    assert parts.word([-value for value in told], told) == "works against"
    assert parts.word(told, not_told) == parts.word(not_told, told) == "undecided"
