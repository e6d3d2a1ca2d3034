"""Tables 5 and 6 from results made by hand."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from factories import compare_variants, make_published, make_result, make_routing

from repro import paper
from repro.errors import UserError
from repro.report import curriculum
from repro.report.tables import table5, table5_detail, table6, table6_detail
from repro.report.tables.base import Table
from repro.results.published import Published
from repro.results.run import RunResult
from repro.study.definition import load_study
from repro.study.variants import chosen_variants, variants_of


def run(
    variant: str, seed: int, quality: float | None, *curve: tuple[float, float], **changes: object
) -> RunResult:
    """A finished run of SST-2 whose evaluation loss starts at 1 and goes through (seconds, loss)."""
    return make_result(
        "sst2",
        variant,
        seed,
        run_id=f"{variant}-s{seed}".replace(" ", "-"),
        metric__value=quality,
        curve=[(0, 0.0, 1.0), *((10 * (n + 1), *point) for n, point in enumerate(curve))],
        routing_eval=make_routing(0.5),
        **{"flops__per_token_executed": 5.0, **changes},
    )


def publish(
    study: str, variants: Mapping[str, Sequence[RunResult | str]], failed: Mapping[str, str] | None = None
) -> Published:
    return compare_variants(study, variants, failed=failed)


# --- Table 5 -----------------------------------------------------------------------------------------

# Target: the loss of top-2 after 20 steps, 0.4. T = 0.05 gets there half way between (step 10, 0.6) and
# (step 20, 0.2): 0.75. T = 0.2 after 10 steps of half the time: 0.25. T = 0.3 never. T = 0.4 was not run.
THRESHOLD: dict[str, list[RunResult | str]] = {
    "top-2": [run("top-2", 0, 0.75, (10, 0.6), (20, 0.4), flops__per_token=8.0)],
    "0.05": [run("0.05", 0, 0.5, (10, 0.6), (20, 0.2))],
    "0.1": [run("0.1", 0, 0.7, (10, 0.4), (20, 0.1))],
    "0.2": [run("0.2", 0, 0.625, (10, 0.4), (20, 0.1), seconds_per_step=0.25)],
    "0.3": [run("0.3", 0, None, (10, 0.6), (20, 0.5))],
    "0.4": ["0.4-s0"],
}


def test_table_5_by_hand() -> None:
    (row,) = table5.rows(publish("threshold", THRESHOLD))
    assert tuple(row) == table5.COLUMNS
    assert row == {
        "Task": "Sentiment analysis",
        "Norm. Training Time 0.05": 0.75,
        "Norm. Training Time 0.2": 0.25,
        "Norm. Training Time 0.3": "> 1 (0 of 1 reached)",
        "Norm. Training Time 0.4": None,
        "Inference Performance 0.05": 0.5,
        "Inference Performance 0.2": 0.625,
        "Inference Performance 0.3": None,
        "Inference Performance 0.4": None,
    }


def test_table_5_detail_by_hand() -> None:
    published = publish("threshold", THRESHOLD, failed={"0.4-s0": "MemoryError"})
    rows = {row["Threshold"]: row for row in table5_detail.rows(published)}
    assert list(rows) == list(THRESHOLD)
    assert rows["0.2"] == {
        "Task": "Sentiment analysis",
        "Metric": "Accuracy",
        "Threshold": "0.2",
        "Seeds": "0",
        "Norm. Training Time": 0.25,
        "Norm. Training Time by seed": "0.25",
        "Norm. Training Time interval": None,
        "Steps to target": 0.5,
        "Time per step": 0.5,
        "Reached": "1 of 1",
        "Norm. Training Time (paper)": 0.77,
        "Norm. FLOPs": 0.5,
        "Share two experts": 0.25,
        "Share two experts at evaluation": 0.5,
        "Inference Performance": 0.625,
        "Inference Performance interval": None,
        "Inference Performance by seed": "0.625",
        "Inference Performance difference": -0.125,
        "Inference Performance difference interval": None,
        "Inference Performance smallest effect": None,
        "Inference Performance (paper)": 0.918,
        "Final loss": 0.5,
        "Target loss": 0.4,
        "Reason for empty cells": None,
        "Code": "01234567",
        "Processor": "a processor",
        "Command": None,
        "Runs": "0.2-s0",
    }
    assert rows["0.1"]["Norm. Training Time (paper)"] is None
    assert rows["0.3"]["Reason for empty cells"] == "Accuracy of seed 0 is not a finite number"
    assert rows["0.4"]["Reason for empty cells"] == "0.4-s0: MemoryError"
    assert [note.split(":")[0] for note in table5_detail.notes(published)] == [
        "Sentiment analysis, 0.3",
        "Sentiment analysis, 0.4",
    ]


def test_every_threshold_of_the_paper_is_in_the_study() -> None:
    variants = load_study("threshold").variants
    assert {f"{at:g}" for at in paper.tables()["table5"]["thresholds"]} | {"0.1", "top-2"} == set(variants)
    for label, variant in variants.items():
        if label == "top-2":
            assert (variant.gate, variant.settings) == ("top-2", {})
        else:
            assert (variant.gate, variant.settings) == ("adaptive", {"gate.threshold": float(label)})


def test_other_values_replace_those_of_the_study() -> None:
    variants = variants_of("threshold", [0.15, 0.5])
    assert {label: (variant.gate, variant.settings) for label, variant in variants.items()} == {
        "top-2": ("top-2", {}),
        "0.15": ("adaptive", {"gate.threshold": 0.15}),
        "0.5": ("adaptive", {"gate.threshold": 0.5}),
    }
    with pytest.raises(UserError, match="--values: has no effect on 'schemes'"):
        variants_of("schemes", [0.1])


@pytest.mark.parametrize(
    ("study", "only", "expected"),
    [
        ("schemes", [], ["dense", "top-2", "top-1", "adaptive"]),
        ("schemes", ["adaptive", "top-2"], ["top-2", "adaptive"]),
        (
            "gates",
            ["hash", "ratio", "relu 1.5"],
            ["hash", *(f"ratio {n}" for n in (1.1, 1.25, 1.5, 1.75)), "relu 1.5"],
        ),
        ("curriculum", ["cosine"], ["cosine"]),
        ("curriculum", ["random padded", "cosine"], ["cosine", "random padded"]),
        ("adamoe", ["adamoe"], ["top-2", "adamoe"]),
    ],
)
def test_chosen_variants(study: str, only: list[str], expected: list[str]) -> None:
    assert list(chosen_variants(study, [], only)) == expected


def test_variants_that_are_not_there() -> None:
    with pytest.raises(UserError) as caught:
        chosen_variants("gates", [], ["adaptve", "top-2", "relu 2"])
    first, second = caught.value.problems
    assert first == "--variants: unknown variant 'adaptve'. Did you mean 'adaptive'?"
    assert second.startswith("--variants: unknown variant 'relu 2'. Did you mean 'relu")


# --- Table 6 -----------------------------------------------------------------------------------------

RECORDED = {
    "length_ratio_correlation": -0.25,
    "length_count_correlation": 0.5,
    "place_ratio_correlation": -0.375,
}


def ordered(
    variant: str, seed: int, quality: float, by_epoch: Sequence[float], *losses: float, **changes: object
) -> RunResult:
    """A run of four epochs with these median times a step, whose loss starts at 1 and goes on every 10 steps.

    The time a step over all epochs, half a second, is that of no table.
    """
    curve = [(10 * (n + 1.0), loss) for n, loss in enumerate(losses)]
    four: dict[str, object] = {"epochs": 4.0, "seconds_per_step_by_epoch": by_epoch}
    return run(variant, seed, quality, *curve, **{**four, **changes})


# The curriculum is at 0.4 after its 20 steps, random order after 25 of its 30, half way between 0.6 and 0.2:
# 1.25 times the steps. A step of its ordered epochs takes 0.6 s, of the curriculum's 0.5 s: 1.2. So 0.5 more
# in all. In the first epoch, the same work, it takes 1.02 times as long. By length the loss is not reached in
# 30 steps, 1.5 times as many of half the time each: more than 0.75, an inflation above -0.25.
# On `padded` random order needs the same steps of 0.75 s instead of 1 s: -0.25.
CURRICULUM: dict[str, list[RunResult | str]] = {
    "cosine": [ordered("cosine", 0, 0.75, [0.5, 0.4, 0.5, 0.7], 0.7, 0.4, curriculum=RECORDED)],
    "random": [ordered("random", 0, 0.5, [0.51, 0.6, 0.9, 0.6], 0.8, 0.6, 0.2)],
    "length": [ordered("length", 0, 0.5, [9.0, 0.25, 0.25, 0.25], 0.9, 0.8, 0.7)],
    "cosine padded": [ordered("cosine padded", 0, 0.75, [1.0, 1.0, 1.0, 1.0], 0.7, 0.4)],
    "random padded": [
        ordered("random padded", 0, 0.5, [1.0, 0.75, 0.75, 0.75], 0.7, 0.4, flops__per_token_executed=8.0)
    ],
}


def test_table_6_by_hand() -> None:
    (row,) = table6.rows(publish("curriculum", CURRICULUM))
    assert row == {
        "Task": "Sentiment analysis",
        "Training Time Inflation": 0.5,
        "Inference Performance": -0.25,
    }


def test_a_bound_of_an_inflation_stays_one() -> None:
    """A loss that is not reached in 30 steps, 1.5 times 20, of 0.6 s instead of 0.5 s: above 0.8."""
    missed = ordered("random", 0, 0.5, [0.5, 0.6, 0.6, 0.6], 0.9, 0.8, 0.7)
    published = publish("curriculum", {**CURRICULUM, "random": [missed]})
    (row,) = table6.rows(published)
    assert row["Training Time Inflation"] == "> 0.8 (0 of 1 reached)"
    assert curriculum.inflation(curriculum.orders(published)[1]) == pytest.approx(0.8)
    detail = table6_detail.rows(published)[1]
    assert detail["Inflation of steps"] == "> 0.5 (0 of 1 reached)"
    assert detail["Inflation per step"] == 0.2


def test_table_6_detail_by_hand() -> None:
    rows = table6_detail.rows(publish("curriculum", CURRICULUM))
    assert tuple(rows[0]) == table6_detail.COLUMNS
    found = {(row["Order"], row["Back-end"]): row for row in rows}
    assert list(found) == [
        ("cosine", "grouped"),
        ("random", "grouped"),
        ("length", "grouped"),
        ("cosine", "padded"),
        ("random", "padded"),
    ]
    random = found["random", "grouped"]
    assert random["Inflation of steps"] == 0.25
    assert random["Inflation per step"] == 0.2
    assert random["Noise floor per step"] == 0.02
    assert random["Training Time Inflation (paper)"] == 0.22
    assert random["Inference Performance difference (paper)"] == 0.0
    assert random["Correlation of length and ratio"] is None
    cosine = found["cosine", "grouped"]
    assert cosine["Correlation of length and ratio"] == -0.25
    assert cosine["Correlation of length and count"] == 0.5
    assert cosine["Correlation of place and ratio"] == -0.375
    assert cosine["Training Time Inflation"] == 0.0
    assert cosine["Training Time Inflation (paper)"] is None
    assert found["length", "grouped"]["Training Time Inflation"] == "> -0.25 (0 of 1 reached)"
    padded = found["random", "padded"]
    assert padded["Training Time Inflation"] == -0.25
    assert padded["Executed FLOPs per routed"] == 2.0
    assert padded["Noise floor per step"] == 0.0


def test_the_noise_floor_is_the_spread_of_first_epochs() -> None:
    """Of equal work: seed by seed, without `length`, on each back-end. 1.02 of seed 0, 1.1 of seed 1."""
    published = publish(
        "curriculum",
        {
            **CURRICULUM,
            "cosine": [*CURRICULUM["cosine"], ordered("cosine", 1, 0.75, [1.1, 0.5, 0.5, 0.5], 0.7, 0.4)],
            "count": [ordered("count", 1, 0.75, [1.0, 0.5, 0.5, 0.5], 0.7, 0.4)],
        },
    )
    floors = {str(row["Order"]) + " " + str(row["Back-end"]): row for row in table6_detail.rows(published)}
    assert {key: row["Noise floor per step"] for key, row in floors.items() if "grouped" in key} == {
        f"{order} grouped": 0.1 for order in ("cosine", "random", "length", "count")
    }
    note = table6_detail.notes(published)[-1]
    assert note.endswith(
        "times a step differ by Sentiment analysis (grouped) 0.1, Sentiment analysis (padded) 0"
    )


@pytest.mark.parametrize("short", ["cosine", "random"])
def test_too_few_ordered_epochs(short: str) -> None:
    """The row is marked and left empty; so is every row if it is the curriculum itself."""
    (kept,) = CURRICULUM[short]
    assert isinstance(kept, RunResult)
    two = kept.model_copy(update={"epochs": 3.0})
    published = publish("curriculum", {**CURRICULUM, short: [two]})
    (row,) = table6.rows(published)
    assert (row["Training Time Inflation"], row["Inference Performance"]) == (None, None)
    rows = {str(row["Order"]): row for row in table6_detail.rows(published) if row["Back-end"] == "grouped"}
    marked = [order for order, row in rows.items() if row["Training Time Inflation"] is None]
    assert marked == (["cosine", "random", "length"] if short == "cosine" else ["random"])
    for order in marked:
        assert rows[order]["Inflation per step"] is None
        assert rows[order]["Reason for empty cells"] == "2 ordered epochs, fewer than 3"
    assert "Sentiment analysis, random: 2 ordered epochs, fewer than 3" in table6_detail.notes(published)


def test_without_the_curriculum_there_is_nothing_to_compare_with() -> None:
    published = publish("curriculum", {"cosine": ["gone"], "random": CURRICULUM["random"]})
    (row,) = table6.rows(published)
    assert row["Training Time Inflation"] is None
    assert row["Inference Performance"] is None
    reasons = {row["Order"]: row["Reason for empty cells"] for row in table6_detail.rows(published)}
    assert reasons == {"cosine": "gone: not run", "random": "no cosine run to compare with"}


@pytest.mark.parametrize("table", [table5, table5_detail, table6, table6_detail])
def test_no_study_no_rows(table: Table) -> None:
    assert table.rows(make_published()) == []


# --- the commands ------------------------------------------------------------------------------------

SMALL = {
    "training.epochs": 2,
    "training.batch_size": 8,
    "data.train_samples": 32,
    "data.validation_samples": 8,
    "data.max_length": 32,
    "model.vocab_size": 300,
    "experts.count": 2,
    "evaluation.points": 2,
}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_studies_from_the_command_line(tmp_path: Path, cli: Any) -> None:
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    common = ["--tasks", "sst2", "--out", tmp_path, *settings]
    done = cli("ablate", "threshold", *common, "--values", "0.1,0.9")
    assert done.status == 0, done.err
    assert max(map(len, done.out.splitlines()[:-1])) <= 80  # the last names the report
    detail = csv_rows(tmp_path / "mini" / "table5_detail.csv")
    assert [row["Threshold"] for row in detail] == ["top-2", "0.1", "0.9"]
    shares = [float(row["Share two experts"]) for row in detail]
    assert shares[1] < shares[2] < shares[0] == 1.0
    done = cli("ablate", "curriculum", *common)
    assert done.status == 0, done.err
    assert "8 runs, 0 of them finished before" in done.err
    assert max(len(line) for line in done.out.splitlines()[:-1] if not line.startswith("*")) <= 80
    rows = csv_rows(tmp_path / "mini" / "table6_detail.csv")
    assert [row["Order"] for row in rows] == [
        *("cosine", "random", "distance", "mean", "count", "length"),
        *("cosine", "random"),
    ]
    for row in rows[6:]:
        assert float(row["Executed FLOPs per routed"]) > float(rows[0]["Executed FLOPs per routed"])
    assert all(-1 <= float(row["Correlation of length and count"]) <= 1 for row in rows)
    for row in rows:
        assert row["Noise floor per step"]
        assert ("ordered epochs" in row["Reason for empty cells"]) is False
        if row["Order"] == "random":
            assert row["Correlation of place and ratio"] == ""
        else:
            assert -1 <= float(row["Correlation of place and ratio"]) <= 1
    assert float(rows[3]["Correlation of place and ratio"]) > 0.99  # by the mean ratio itself
    assert len(csv_rows(tmp_path / "mini" / "table6.csv")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["threshold", "--values", "0.1,many"], "--values: expected numbers separated by commas, got 'many'"),
        (["threshold", "--values", "1.5"], "gate.threshold: must be between 0 and 1, got 1.5"),
        (["curriculum", "--values", "0.1"], "--values: has no effect on 'curriculum'"),
    ],
)
def test_wrong_values(arguments: list[str], message: str, tmp_path: Path, cli: Any) -> None:
    done = cli("ablate", *arguments, "--tasks", "sst2", "--out", tmp_path / "out")
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()
