"""Tables 5 and 6 from results made by hand."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from factories import compare_variants, make_published, make_result, make_routing

from repro import paper
from repro.errors import UserError
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

# Target: the final loss of top-2, 0.4, which it reaches after 20 s. T = 0.05 gets there half way between
# (10 s, 0.6) and (20 s, 0.2), after 15 s: 0.75. T = 0.2 after 10 s: 0.5. T = 0.3 never. T = 0.4 was not run.
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
        "Norm. Training Time 0.2": 0.5,
        "Norm. Training Time 0.3": None,
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
        "Norm. Training Time": 0.5,
        "Norm. Training Time (paper)": 0.77,
        "Norm. time per step": 0.5,
        "Norm. FLOPs": 0.5,
        "Share two experts": 0.25,
        "Share two experts at evaluation": 0.5,
        "Inference Performance": 0.625,
        "Inference Performance interval": None,
        "Inference Performance by seed": "0.625",
        "Inference Performance (paper)": 0.918,
        "Final loss": 0.1,
        "Target loss": 0.4,
        "Reason for empty cells": None,
        "Runs": "0.2-s0",
    }
    assert rows["0.1"]["Norm. Training Time (paper)"] is None
    assert str(rows["0.3"]["Reason for empty cells"]).startswith("target loss 0.4 not reached")
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

# On `grouped` the curriculum ends at 0.4 after 20 s; random order passes 0.4 between (10 s, 0.6) and
# (30 s, 0.2), after 20 s too: no inflation. On `padded` it takes 40 s to 0.4 and random order 50 s: 0.25.
RECORDED = {"length_ratio_correlation": -0.25, "length_count_correlation": 0.5}
CURRICULUM: dict[str, list[RunResult | str]] = {
    "cosine": [run("cosine", 0, 0.75, (20, 0.4), curriculum=RECORDED)],
    "random": [run("random", 0, 0.5, (10, 0.6), (30, 0.2), seconds_per_step=0.6)],
    "cosine padded": [run("cosine padded", 0, 0.75, (40, 0.4))],
    "random padded": [run("random padded", 0, 0.5, (50, 0.4), flops__per_token_executed=8.0)],
}


def test_table_6_by_hand() -> None:
    (row,) = table6.rows(publish("curriculum", CURRICULUM))
    assert row == {
        "Task": "Sentiment analysis",
        "Training Time Inflation": 0.0,
        "Inference Performance": -0.25,
    }


def test_table_6_detail_by_hand() -> None:
    rows = table6_detail.rows(publish("curriculum", CURRICULUM))
    assert tuple(rows[0]) == table6_detail.COLUMNS
    found = {(row["Order"], row["Back-end"]): row for row in rows}
    assert list(found) == [
        ("cosine", "grouped"),
        ("random", "grouped"),
        ("cosine", "padded"),
        ("random", "padded"),
    ]
    random = found["random", "grouped"]
    assert random["Inflation per step"] == 0.2
    assert random["Training Time Inflation (paper)"] == 0.22
    assert random["Inference Performance difference (paper)"] == 0.0
    assert random["Correlation of length and ratio"] is None
    cosine = found["cosine", "grouped"]
    assert cosine["Correlation of length and ratio"] == -0.25
    assert cosine["Correlation of length and count"] == 0.5
    assert cosine["Training Time Inflation (paper)"] is None
    padded = found["random", "padded"]
    assert padded["Training Time Inflation"] == 0.25
    assert padded["Executed FLOPs per routed"] == 2.0


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
    "evaluation.every": 4,
}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_studies_from_the_command_line(tmp_path: Path, cli: Any) -> None:
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    common = ["--tasks", "sst2", "--out", tmp_path, *settings]
    done = cli("ablate", "threshold", *common, "--values", "0.1,0.9")
    assert done.status == 0, done.err
    assert max(map(len, done.out.splitlines()[:-1])) <= 80  # the last names the files
    detail = csv_rows(tmp_path / "mini" / "table5_detail.csv")
    assert [row["Threshold"] for row in detail] == ["top-2", "0.1", "0.9"]
    shares = [float(row["Share two experts"]) for row in detail]
    assert shares[1] < shares[2] < shares[0] == 1.0
    done = cli("ablate", "curriculum", *common)
    assert done.status == 0, done.err
    assert "6 runs, 1 of them finished before" in done.err  # the run at T = 0.1 is that of the curriculum
    assert max(len(line) for line in done.out.splitlines()[:-1] if not line.startswith("*")) <= 80
    rows = csv_rows(tmp_path / "mini" / "table6_detail.csv")
    assert [row["Order"] for row in rows] == ["cosine", "random", "count", "length", "cosine", "random"]
    for row in rows[4:]:
        assert float(row["Executed FLOPs per routed"]) > float(rows[0]["Executed FLOPs per routed"])
    assert all(-1 <= float(row["Correlation of length and count"]) <= 1 for row in rows)
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
