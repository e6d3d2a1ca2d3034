"""AdaMoE's headline by hand: FLOPs saved and points gained seed by seed, the two claims, 80 columns."""

from collections.abc import Mapping, Sequence

import pytest
from factories import compare_variants, make_published, make_result
from rich.console import Console

from repro import paper
from repro.cli.console import plain_table
from repro.report.tables import adamoe, claims
from repro.report.tables.base import Row
from repro.results.published import Published
from repro.results.run import RunResult


def run(
    variant: str,
    seed: int,
    flops: float,
    quality: float | None,
    experts: float = 2.0,
    task: str = "sst2",
    eval_loss: float = 0.5,
) -> RunResult:
    """A run with these FLOPs and mean experts at evaluation; in training it used a quarter expert more."""
    return make_result(
        task,
        variant,
        seed,
        run_id=f"{task}-{variant}-s{seed}",
        metric__value=quality,
        eval_loss=eval_loss,
        flops__per_token=9.0,
        flops_eval__per_token=flops,
        routing__mean_experts=experts + 0.25,
        routing_eval__mean_experts=experts,
    )


def publish(
    variants: Mapping[str, Sequence[RunResult | str]],
    task: str = "sst2",
    failed: Mapping[str, str] | None = None,
) -> Published:
    return compare_variants("adamoe", variants, task, failed)


# Saved: 1 - 6 / 8 and 1 - 7 / 10, mean 0.275; their distance from it is 0.025, so the standard error of
# the mean is 0.025 too, and the half width 12.706 times that. Points: 100 (0.82 - 0.8) and 100 (0.78 - 0.8).
HAND: dict[str, list[RunResult | str]] = {
    "top-2": [run("top-2", 0, 8.0, 0.75), run("top-2", 1, 10.0, 0.75)],
    "plain": [run("plain", 0, 8.0, 0.8), run("plain", 1, 10.0, 0.8)],
    "adamoe": [run("adamoe", 0, 6.0, 0.82, 1.5), run("adamoe", 1, 7.0, 0.78, 1.25)],
}


def test_the_table_by_hand() -> None:
    rows = {row["Scheme"]: row for row in adamoe.rows(publish(HAND))}
    assert list(rows) == ["top-2", "plain", "adamoe"]
    assert all(tuple(row) == adamoe.COLUMNS for row in rows.values())
    assert rows["adamoe"] == {
        "Task": "Sentiment analysis",
        "Model": None,
        "Metric": "Accuracy",
        "Scheme": "adamoe",
        "Seeds": "0 1",
        "Mean experts": 1.625,
        "Mean experts at evaluation": 1.375,
        "FLOPs per token at evaluation": 6.5,
        "FLOPs saved": 0.275,
        "FLOPs saved interval": 0.32,
        "FLOPs saved (paper)": 0.145,
        "Inference Performance": 0.8,
        "Inference Performance interval": 0.25,
        "Inference Performance by seed": "0.82 0.78",
        "Gain": pytest.approx(0.0, abs=1e-9),
        "Gain interval": 25.0,
        "Gain smallest effect": 33.0,  # 11.55 deviations of 2.83
        "Gain (paper)": 1.69,
        "Reason for empty cells": None,
        "Code": "01234567",
        "Processor": "a processor",
        "Command": None,
        "Runs": "sst2-adamoe-s0 sst2-adamoe-s1",
    }
    assert (rows["plain"]["FLOPs saved"], rows["plain"]["Gain"]) == (0.0, 0.0)
    assert (rows["top-2"]["FLOPs saved"], rows["top-2"]["Gain"]) == pytest.approx((0.0, -5.0))
    for scheme in ("top-2", "plain"):
        assert rows[scheme]["FLOPs saved (paper)"] is None
        assert rows[scheme]["Gain (paper)"] is None


@pytest.mark.parametrize(("task", "gain"), [("sst2", 400.0), ("squad", 4.0), ("wikitext", -4.0)])
def test_a_gain_is_in_points_and_in_the_direction_of_the_metric(task: str, gain: float) -> None:
    runs = {
        "plain": [run("plain", 0, 8.0, 20.0, task=task)],
        "adamoe": [run("adamoe", 0, 6.0, 24.0, task=task)],
    }
    assert adamoe.rows(publish(runs, task))[1]["Gain"] == gain


def test_runs_are_compared_with_those_of_their_seed() -> None:
    """Seed 1 has no plain run: only seed 0 counts, and the row says what is missing."""
    runs = HAND | {"plain": [run("plain", 0, 8.0, 0.8), "sst2-plain-s1"]}
    published = publish(runs, failed={"sst2-plain-s1": "MemoryError: big"})
    rows = {row["Scheme"]: row for row in adamoe.rows(published)}
    assert (rows["adamoe"]["FLOPs saved"], rows["adamoe"]["Gain"]) == pytest.approx((0.25, 2.0))
    assert rows["adamoe"]["FLOPs saved interval"] is None
    assert rows["plain"]["Reason for empty cells"] == "sst2-plain-s1: MemoryError: big"


def test_reasons_for_empty_cells() -> None:
    gone = HAND | {"plain": ["sst2-plain-s0", "sst2-plain-s1"]}
    rows = {row["Scheme"]: row for row in adamoe.rows(publish(gone))}
    assert rows["plain"]["Reason for empty cells"] == "sst2-plain-s0: not run; sst2-plain-s1: not run"
    assert rows["plain"]["Inference Performance"] is None
    reason = "no plain run of the same seed to compare with"
    assert rows["adamoe"]["Reason for empty cells"] == reason
    assert rows["adamoe"]["Gain"] is None
    assert adamoe.notes(publish(gone))[1:] == [
        f"Sentiment analysis, top-2: {reason}",
        "Sentiment analysis, plain: sst2-plain-s0: not run; sst2-plain-s1: not run",
        f"Sentiment analysis, adamoe: {reason}",
    ]
    overflown = HAND | {"adamoe": [run("adamoe", 0, 6.0, None)]}
    assert adamoe.rows(publish(overflown))[2]["Reason for empty cells"] == "Accuracy is not a finite number"


def test_no_study_no_rows() -> None:
    empty = make_published()
    assert (adamoe.rows(empty), adamoe.shown(empty), adamoe.notes(empty)) == ([], [], [])


def test_the_paper_stands_beside_ours() -> None:
    shown = adamoe.shown(publish(HAND))
    assert [row["Scheme"] for row in shown] == ["top-2", "plain", "adamoe"]
    assert (shown[2]["FLOPs saved"], shown[2]["(paper)"], shown[2]["(paper) "]) == (0.275, 0.145, 1.69)
    assert adamoe.notes(publish(HAND)) == [
        "(paper): AdaMoE, Mixtral-8x7B on ARC-C; gains are points of the metric"
    ]


def test_the_widest_row_fits_into_80_columns() -> None:
    wide: Row = {"Task": "Summarization", "Experts": 1.234567, "FLOPs saved": -0.123, "Metric": "Perplexity"}
    row = {**adamoe.shown(publish(HAND))[2], **wide, "Value": 0.1234567, "Gain": -12.34}
    console = Console(width=80, highlight=False, soft_wrap=True)
    with console.capture() as capture:
        console.print(plain_table([row]))
    lines = capture.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    words = {word for line in lines for word in line.split()}
    assert {"Summarization", "adamoe", "1.235", "-0.123", "0.145", "0.1235", "-12.34", "1.69"} <= words


# --- the claims --------------------------------------------------------------------------------------


def row_of(published: Published, what: str) -> Row:
    (row,) = [
        row
        for row in claims.rows(published)
        if str(row["Claim"]).startswith("AdaMoE: fine-tuning with null experts " + what)
    ]
    return row


def test_claims_by_hand() -> None:
    # 0.75 and 0.7 of the FLOPs; losses 0.1 and 0.2 below those of plain fine-tuning.
    runs = {
        "plain": [run("plain", seed, flops, 0.8, eval_loss=0.5) for seed, flops in enumerate((8.0, 10.0))],
        "adamoe": [
            run("adamoe", seed, flops, 0.8, eval_loss=loss)
            for seed, (flops, loss) in enumerate(((6.0, 0.4), (7.0, 0.3)))
        ],
    }
    row = row_of(publish(runs), "saves")
    assert row["Ours"] == pytest.approx((0.75 * 0.7) ** 0.5, rel=1e-3)
    assert (row["Samples"], row["Verdict"]) == (2, "open")
    row = row_of(publish(runs), "performs")
    assert row["Ours"] == pytest.approx(-0.15)
    # The standard deviation is 0.0707 and t(1 degree, 97.5 %) = 12.706: half width 0.635.
    assert row["Low"] == pytest.approx(-0.15 - 0.6353, rel=1e-3)
    assert row["Verdict"] == "open"


def test_claims_name_the_other_paper_and_its_numbers() -> None:
    printed = paper.tables()["adamoe"]
    saved, quality = (row_of(make_published(), what) for what in ("saves", "performs"))
    assert saved["Where"] == quality["Where"] == "AdaMoE, abstract"
    assert float(str(saved["Paper"]).split()[0]) == 1 - printed["flops_saved"]
    assert float(str(quality["Paper"]).split()[0]) == printed["gain"]
    assert saved["Verdict"] == quality["Verdict"] == "not measured"
