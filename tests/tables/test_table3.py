"""Table 3 from results made by hand: every cell worked out, and what stays empty says why."""

import random
from collections.abc import Mapping

import pytest
from factories import METRICS, make_published, make_result, make_study

from repro import paper
from repro.report.tables import table3, table3_detail
from repro.report.tables.base import Row, Table
from repro.results.published import Published
from repro.results.run import RunResult

SCHEMES = ("dense", "top-2", "top-1", "adaptive")
TASKS = tuple(METRICS)
"""In the order of the paper's Table 3."""


def run_id(task: str, scheme: str, seed: int) -> str:
    return f"{task}-{scheme}-s{seed}-00000000"


def performing(task: str, scheme: str, seed: int, value: float | None, **changes: object) -> RunResult:
    """A run with this value of the metric."""
    return make_result(task, scheme, seed, metric__value=value, **changes)


def routed(flops: float) -> dict[str, float]:
    return {
        "per_token": flops,
        "per_token_executed": 2 * flops,
        "macs_per_token": flops / 2,
        "dense_per_token": 1.0,
    }


def publish(
    *results: RunResult, seeds: int = 1, tasks: tuple[str, ...] = (), failed: Mapping[str, str] | None = None
) -> Published:
    """These results, of a study that asked for all schemes with these seeds on these tasks (or theirs)."""
    tasks = tasks or tuple(dict.fromkeys(one.task for one in results))
    plan = {
        task: {scheme: [run_id(task, scheme, seed) for seed in range(seeds)] for scheme in SCHEMES}
        for task in tasks
    }
    return make_published(*results, studies=[make_study("schemes", plan, failed)])


def row_of(table: Table, published: Published, scheme: str, task: str = "sst2") -> Row:
    """The row of a scheme in a table with one task, or several that are told apart by their place."""
    place = list(published.studies["schemes"].tasks).index(task)
    (row,) = [row for row in table.rows(published)[4 * place : 4 * place + 4] if row["Scheme"] == scheme]
    return row


@pytest.fixture(scope="module")
def sst2() -> Published:
    """Two seeds. Top-2's targets, after 20 steps of 1 and 1.5 s: 1/4 and 3/8.

    * adaptive is there after 10 + 10 (1/2 - 1/4) / (1/2 - 1/8) = 16 2/3 and after 15 steps of half the time.
    * top-1 is there after 20 steps of half the time, and in seed 1 not within 40 of a third of it.
    * dense is not there within 40 steps: bounds of 2 * 0.5 and 2 / 3.
    """

    def curve(*losses: float, every: int = 10) -> list[tuple[int, float, float]]:
        return [(every * place, 0.5 * place, loss) for place, loss in enumerate((0.75, *losses))]

    return publish(
        performing("sst2", "dense", 0, 0.5, flops=routed(2.0), curve=curve(0.625, 0.5, every=20)),
        performing("sst2", "dense", 1, 0.75, flops=routed(2.0), curve=curve(0.625, 0.5, every=20)),
        performing("sst2", "top-2", 0, 0.75, seconds_per_step=1.0, curve=curve(0.5, 0.25), eval_loss=0.5),
        performing("sst2", "top-2", 1, 1.0, seconds_per_step=1.5, curve=curve(0.5, 0.375), eval_loss=0.75),
        performing("sst2", "top-1", 0, 0.5, flops=routed(2.5), curve=curve(0.5, 0.25)),
        performing("sst2", "top-1", 1, 0.5, flops=routed(2.5), curve=curve(0.5, 0.4375, every=20)),
        performing(
            "sst2",
            "adaptive",
            0,
            0.75,
            seconds_per_step=0.5,
            flops=routed(3.0),
            curve=curve(0.5, 0.125),
            dev_loss=0.125,
            eval_loss=0.625,
            metric_trivial=0.5,
        ),
        performing(
            "sst2",
            "adaptive",
            1,
            0.875,
            seconds_per_step=0.75,
            flops=routed(3.5),
            train_seconds=14.0,
            tokens=1500,
            steps=30,
            peak_memory_bytes=13,
            curve=curve(0.5, 0.25),
            dev_loss=0.25,
            eval_loss=0.75,
            metric_trivial=0.5,
        ),
        seeds=2,
    )


class TestWorkedByHand:
    def test_the_table(self, sst2: Published) -> None:
        columns = ("Norm. Training Time", "Computation FLOPs", "Inference Performance")
        assert [[row["Scheme"], *(row[name] for name in columns)] for row in table3.rows(sst2)] == [
            ["dense", "> 0.816 (0 of 2 reached)", 2.0, 0.625],
            ["top-2", 1.0, 4.0, 0.875],
            ["top-1", "> 0.577 (1 of 2 reached)", 2.5, 0.5],
            ["adaptive", 0.3953, 3.25, 0.8125],
        ]
        assert {(row["Task"], row["Metric"]) for row in table3.rows(sst2)} == {
            ("Sentiment analysis", "Accuracy")
        }

    def test_every_cell_of_a_detailed_row(self, sst2: Published) -> None:
        """Intervals with t = 12.706: of one degree of freedom."""
        assert row_of(table3_detail, sst2, "adaptive") == {
            "Task": "Sentiment analysis",
            "Metric": "Accuracy",
            "Scheme": "adaptive",
            "Seeds": "0 1",
            # sqrt(5/12 * 3/8); the logs are 0.0527 from their mean, so the half width is 12.706 times that.
            "Norm. Training Time": 0.3953,
            "Norm. Training Time by seed": "0.4167 0.375",
            "Norm. Training Time interval": "0.2024 0.772",
            "Steps to target": 0.7906,  # sqrt(5/6 * 3/4)
            "Time per step": 0.5,
            "Reached": "2 of 2",
            "Norm. Training Time (paper)": 0.77,
            "Target loss": 0.3125,
            "Final loss": 0.1875,
            "Reason for empty cells": None,
            "Train seconds": 12.0,
            "Seconds per step": 0.625,
            "Seconds per step interval": 1.6,  # 12.706 / 8
            "Tokens per second": 100.0,
            "Stolen share": None,
            "Inference Performance": 0.8125,
            "Inference Performance interval": 0.79,  # 12.706 / 16
            "Inference Performance by seed": "0.75 0.875",
            # 0 and -1/8: mean -1/16, deviation 0.0884, standard error 1/16; 16.33 of them could be seen.
            "Inference Performance difference": -0.0625,
            "Inference Performance difference interval": 0.79,
            "Inference Performance smallest effect": 1.0,
            "Inference Performance (trivial)": 0.5,
            "Inference Performance (top-1 gate)": 0.25,
            "Inference Performance (paper)": 0.919,
            "Validation loss": 0.6875,
            "Validation loss difference": 0.0625,  # 1/8 and 0
            "Validation loss difference interval": 0.79,
            "Validation loss smallest effect": 1.0,
            "FLOPs per token": 3.25,
            "FLOPs per token executed": 6.5,
            "MACs per token": 1.625,
            "Norm. FLOPs": 0.8125,
            "Norm. FLOPs (paper)": 0.7012,  # 2.30 / 3.28
            "Computation FLOPs (paper)": 2.30e9,
            "Share two experts": 0.25,
            "Share two experts at evaluation": 0.25,
            "Share two experts (paper)": 0.113,
            "Mean experts": 1.25,
            "Peak memory bytes": 12,
            "Parameters": 7,
            "Active parameters": 5,
            "Steps": "20 30",
            "Tokens": 1250,
            "Examples": 8,
            "Code": "01234567",
            "Processor": "a processor",
            "Command": None,
            "Runs": "sst2-adaptive-s0-00000000 sst2-adaptive-s1-00000000",
        }

    def test_target_not_reached(self, sst2: Published) -> None:
        dense, top_1 = (row_of(table3_detail, sst2, scheme) for scheme in ("dense", "top-1"))
        assert (dense["Norm. Training Time by seed"], dense["Reached"]) == (">1 >0.6667", "0 of 2")
        assert (top_1["Norm. Training Time by seed"], top_1["Reached"]) == ("0.5 >0.6667", "1 of 2")
        for row in (dense, top_1):
            assert row["Norm. Training Time interval"] is None
            assert row["Reason for empty cells"] is None
        assert dense["Steps to target"] == 2.0
        assert table3.notes(sst2) == []

    def test_the_baseline_is_one(self, sst2: Published) -> None:
        row = row_of(table3_detail, sst2, "top-2")
        for name in ("Norm. Training Time", "Time per step", "Norm. FLOPs", "Norm. FLOPs (paper)"):
            assert row[name] == 1.0
        assert row["Norm. Training Time by seed"] == "1 1"
        assert row["Target loss"] == 0.3125
        assert row["Inference Performance difference"] is None

    def test_what_a_dense_model_has_not_is_empty(self, sst2: Published) -> None:
        row = row_of(table3_detail, sst2, "dense")
        for name in (
            "Share two experts",
            "Share two experts at evaluation",
            "Mean experts",
            "Inference Performance (top-1 gate)",
        ):
            assert row[name] is None
        assert row_of(table3_detail, sst2, "top-1")["Share two experts"] == 0.0  # measured

    def test_on_a_terminal_beside_the_paper(self, sst2: Published) -> None:
        dense, top_2, top_1, adaptive = table3.shown(sst2)
        assert list(adaptive.values()) == [
            "Sentiment analysis",
            "adaptive",
            0.3953,
            0.77,
            0.8125,
            pytest.approx(2.30 / 3.28),
            "Accuracy",
            0.8125,
            0.919,
        ]
        times = ["> 0.816 (0 of 2 reached)", 1.0, "> 0.577 (1 of 2 reached)"]
        assert [row["Time"] for row in (dense, top_2, top_1)] == times
        assert [row["paper"] for row in (dense, top_2, top_1)] == [0.88, 1.0, 0.99]
        assert [row["FLOPs"] for row in (dense, top_2, top_1)] == [0.5, 1.0, 0.625]

    def test_three_seeds_of_a_metric_that_falls(self) -> None:
        """Perplexities 10, 12, 14: mean 12, deviation 2, t = 4.303 of two degrees of freedom."""
        published = publish(
            *(performing("wikitext", "top-2", seed, 10.0 + 2 * seed) for seed in range(3)), seeds=3
        )
        row = row_of(table3_detail, published, "top-2", "wikitext")
        assert row["Metric"] == "Perplexity per token"
        assert row["Inference Performance"] == 12.0
        assert row["Inference Performance interval"] == 5.0  # 4.303 * 2 / sqrt(3) = 4.97
        assert row["Inference Performance by seed"] == "10 12 14"
        assert row["Inference Performance (paper)"] == 17.8
        assert row["Seconds per step interval"] == 0.0

    def test_one_seed_has_no_interval(self) -> None:
        row = row_of(table3_detail, publish(make_result("sst2", "top-2")), "top-2")
        assert row["Inference Performance interval"] is None
        assert row["Seconds per step interval"] is None
        assert row["Seeds"] == "0"

    def test_two_tasks_are_compared_with_their_own_baseline(self) -> None:
        published = publish(
            make_result("sst2", "top-2", curve=[[0, 0.0, 1.0], [20, 10.0, 0.5]]),
            make_result("sst2", "adaptive", curve=[[0, 0.0, 1.0], [16, 8.0, 0.5]]),
            make_result("wikitext", "top-2", curve=[[0, 0.0, 6.0], [20, 40.0, 4.0]], flops=routed(8.0)),
            make_result("wikitext", "adaptive", curve=[[0, 0.0, 6.0], [5, 10.0, 4.0]], flops=routed(6.0)),
        )
        sst2, wikitext = (row_of(table3_detail, published, "adaptive", task) for task in ("sst2", "wikitext"))
        assert (sst2["Target loss"], sst2["Norm. Training Time"], sst2["Norm. FLOPs"]) == (0.5, 0.8, 1.0)
        assert (wikitext["Target loss"], wikitext["Norm. Training Time"]) == (4.0, 0.25)
        assert wikitext["Norm. FLOPs"] == 0.75


@pytest.fixture(scope="module")
def everything() -> Published:
    """All six tasks, written down in a random order of tasks."""
    tasks = random.Random(0).sample(TASKS, len(TASKS))
    assert tuple(tasks) != TASKS
    return publish(*(make_result(task, scheme) for task in tasks for scheme in SCHEMES))


class TestRows:
    def test_all_in_the_order_of_the_paper(self, everything: Published) -> None:
        titles = {
            "Sentiment analysis": "Accuracy",
            "Translation": "BLEU Score",
            "Question and Answer": "F1 Score",
            "Summarization": "ROUGE-1",
            "Text completion": "Perplexity per token",
            "Dialogue response": "Perplexity per token",
        }
        expected = [(title, metric, scheme) for title, metric in titles.items() for scheme in SCHEMES]
        assert len(expected) == 24
        for table in (table3, table3_detail):
            rows = table.rows(everything)
            assert [(row["Task"], row["Metric"], row["Scheme"]) for row in rows] == expected
        shown = table3.shown(everything)
        assert [(row["Task"], row["Metric"], row["Scheme"]) for row in shown] == expected

    @pytest.mark.parametrize("table", [table3, table3_detail])
    def test_columns(self, table: Table, everything: Published) -> None:
        assert {tuple(row) for row in table.rows(everything)} == {tuple(table.COLUMNS)}
        assert {tuple(row) for row in table.rows(publish(tasks=("sst2",)))} == {tuple(table.COLUMNS)}

    def test_the_paper_beside_all_of_ours(self, everything: Published) -> None:
        printed = [paper.tables()["table3"][task][scheme] for task in TASKS for scheme in SCHEMES]
        for row, shown, cells in zip(
            table3_detail.rows(everything), table3.shown(everything), printed, strict=True
        ):
            assert row["Norm. Training Time (paper)"] == shown["paper"] == cells["time"]
            assert row["Inference Performance (paper)"] == shown["paper  "] == cells["performance"]
            assert row["Computation FLOPs (paper)"] == cells["flops"]

    def test_the_share_that_the_paper_does_not_print(self, everything: Published) -> None:
        shares = {
            (row["Task"], row["Scheme"]): row["Share two experts (paper)"]
            for row in table3_detail.rows(everything)
        }
        assert {key: share for key, share in shares.items() if share is not None} == {
            ("Sentiment analysis", "adaptive"): 0.113,
            ("Translation", "adaptive"): 0.256,
            ("Question and Answer", "adaptive"): 0.164,
            ("Text completion", "adaptive"): 0.218,
            ("Dialogue response", "adaptive"): 0.234,
        }

    def test_a_task_that_the_paper_has_not_stands_in_the_detail_alone(self) -> None:
        published = publish(*(make_result(task, scheme) for task in ("arc", "sst2") for scheme in SCHEMES))
        for rows in (table3.rows(published), table3.shown(published)):
            assert [row["Task"] for row in rows] == ["Sentiment analysis"] * 4
        detail = [row["Task"] for row in table3_detail.rows(published)]
        assert detail == ["Sentiment analysis"] * 4 + ["Multiple choice"] * 4
        assert table3.notes(published) == [
            "Multiple choice: no task of the paper; its rows are in table3_detail.csv"
        ]

    def test_complete_rows_need_no_reason(self, everything: Published) -> None:
        assert table3.notes(everything) == []
        assert {row["Reason for empty cells"] for row in table3_detail.rows(everything)} == {None}

    def test_what_was_fine_tuned_is_named(self) -> None:
        """One line for a task; a local folder by its name, without what fingerprints its content."""
        checkpoints = {"sst2": "dir:bert:0123abcd", "squad": "bert-base-uncased", "soda": None}
        published = publish(
            *(
                make_result(task, scheme, config__model__checkpoint=checkpoint)
                for task, checkpoint in checkpoints.items()
                for scheme in SCHEMES
            )
        )
        assert table3.notes(published) == [
            "Sentiment analysis: from bert",
            "Question and Answer: from bert-base-uncased",
        ]

    def test_disturbed_times_are_named(self) -> None:
        shares: dict[str, list[float | None]]
        shares = {"dense": [0.1, 0.1], "top-2": [0.3, 0.12], "top-1": [None, 0.0], "adaptive": [0.2, None]}
        published = publish(
            *(
                make_result("sst2", scheme, seed, cpu_steal_fraction=share)
                for scheme, two in shares.items()
                for seed, share in enumerate(two)
            ),
            seeds=2,
        )
        assert table3.notes(published) == [
            "2 rows are too slow: up to 21% of the CPUs went to other virtual machines"
        ]
        assert row_of(table3_detail, published, "top-2")["Stolen share"] == 0.21

    def test_times_taken_apart_are_named(self) -> None:
        """Seed 0 took turns. Of seed 1 only top-1 did with top-2; of dense it is not known."""
        base = run_id("sst2", "top-2", 1)
        published = publish(
            *(
                make_result(
                    "sst2",
                    scheme,
                    0,
                    interleaved_with=[run_id("sst2", other, 0) for other in SCHEMES if other != scheme],
                )
                for scheme in SCHEMES
            ),
            make_result("sst2", "dense", 1),
            make_result("sst2", "top-2", 1, interleaved_with=[run_id("sst2", "top-1", 1)]),
            make_result("sst2", "top-1", 1, interleaved_with=[base]),
            make_result("sst2", "adaptive", 1, interleaved_with=[]),
            seeds=2,
        )
        assert table3.notes(published) == ["1 rows were not timed in turns with top-2: loads may differ"]

    def test_a_task_that_was_not_learned_is_marked(self) -> None:
        """Top-2's accuracy of 0.5 is that of the majority."""
        published = publish(*(make_result("sst2", scheme, metric_trivial=0.5) for scheme in SCHEMES))
        assert table3.notes(published) == [
            "Sentiment analysis, top-2: in no verdict, a trivial answer has accuracy 0.5"
        ]

    @pytest.mark.parametrize("published", [make_published(), make_published(make_result("sst2", "top-2"))])
    def test_no_study_no_rows(self, published: Published) -> None:
        assert table3.rows(published) == table3_detail.rows(published) == []
        assert table3.shown(published) == []
        assert table3.notes(published) == []


OURS = (
    "Norm. Training Time",
    "Steps to target",
    "Time per step",
    "Final loss",
    "Train seconds",
    "Seconds per step",
    "Tokens per second",
    "Inference Performance",
    "Inference Performance (top-1 gate)",
    "FLOPs per token",
    "FLOPs per token executed",
    "MACs per token",
    "Norm. FLOPs",
    "Share two experts",
    "Mean experts",
    "Peak memory bytes",
    "Parameters",
    "Active parameters",
    "Tokens",
    "Examples",
)
"""Numbers of the detailed table that come from the runs of a row."""


class TestEmptyCells:
    def test_a_scheme_without_runs(self) -> None:
        published = publish(
            make_result("sst2", "top-2"), failed={run_id("sst2", "top-1", 0): "MemoryError: big"}
        )
        assert len(table3.rows(published)) == 4
        for scheme, reason in (("adaptive", "not run"), ("top-1", "MemoryError: big")):
            row = row_of(table3_detail, published, scheme)
            assert {row[name] for name in OURS} == {None}
            assert [row[name] for name in ("Seeds", "Runs", "Steps")] == ["", "", ""]
            assert row["Reason for empty cells"] == f"{run_id('sst2', scheme, 0)}: {reason}"
            assert row["Norm. Training Time (paper)"] is not None
            short = row_of(table3, published, scheme)
            assert list(short.values())[3:] == [None, None, None]
        assert row_of(table3, published, "top-2")["Norm. Training Time"] == 1.0
        assert table3.notes(published) == [
            "Sentiment analysis, dense: sst2-dense-s0-00000000: not run",
            "Sentiment analysis, top-1: sst2-top-1-s0-00000000: MemoryError: big",
            "Sentiment analysis, adaptive: sst2-adaptive-s0-00000000: not run",
        ]

    def test_nothing_was_run_at_all(self) -> None:
        published = publish(tasks=("sst2", "squad"), seeds=2)
        rows = table3_detail.rows(published)
        assert len(rows) == 8
        assert {row[name] for row in rows for name in OURS} == {None}
        assert rows[0]["Reason for empty cells"] == (
            "sst2-dense-s0-00000000: not run; sst2-dense-s1-00000000: not run"
        )

    def test_a_seed_that_is_missing(self) -> None:
        """Numbers are over those that are there; the row says which are not, and keeps their seeds."""
        published = publish(
            *(make_result("sst2", "top-2", seed) for seed in range(3)),
            performing("sst2", "adaptive", 0, 0.25),
            performing("sst2", "adaptive", 2, 0.75),
            seeds=3,
            failed={run_id("sst2", "adaptive", 1): "FloatingPointError: the loss is nan"},
        )
        row = row_of(table3_detail, published, "adaptive")
        assert row["Seeds"] == "0 2"
        assert row["Inference Performance"] == 0.5
        assert row["Inference Performance by seed"] == "0.25 0.75"
        assert row["Norm. Training Time by seed"] == "1 1"
        assert row["Norm. Training Time"] == 1.0
        assert row["Reason for empty cells"] == (
            "sst2-adaptive-s1-00000000: FloatingPointError: the loss is nan"
        )

    def test_no_baseline(self) -> None:
        published = publish(performing("sst2", "adaptive", 0, 0.75), make_result("sst2", "dense"))
        row = row_of(table3_detail, published, "adaptive")
        for name in ("Norm. Training Time", "Target loss", "Steps to target", "Norm. FLOPs"):
            assert row[name] is None
        assert row["Norm. Training Time by seed"] is None
        assert row["Reason for empty cells"] == "no top-2 run to compare with"
        # What needs no comparison is there.
        assert (row["Inference Performance"], row["FLOPs per token"], row["Final loss"]) == (0.75, 4.0, 0.5)

    def test_a_seed_that_the_baseline_lacks(self) -> None:
        published = publish(
            make_result("sst2", "top-2", 1),
            make_result("sst2", "adaptive", 0),
            make_result("sst2", "adaptive", 1),
            seeds=2,
        )
        row = row_of(table3_detail, published, "adaptive")
        assert (row["Norm. Training Time by seed"], row["Reached"]) == ("1", "1 of 1")
        assert row["Norm. Training Time"] == 1.0

    def test_a_baseline_that_learned_nothing(self) -> None:
        """Its final loss is above the first: everyone is there at the start, and no ratio exists."""
        rising = [[0, 0.0, 0.5], [20, 10.0, 0.75]]
        published = publish(
            make_result("sst2", "top-2", curve=rising), make_result("sst2", "adaptive", curve=rising)
        )
        for scheme in ("top-2", "adaptive"):
            row = row_of(table3_detail, published, scheme)
            assert row["Norm. Training Time"] is None
            assert row["Norm. Training Time by seed"] is None
            assert row["Reason for empty cells"]

    def test_a_metric_that_overflowed(self) -> None:
        """The perplexity of seed 1 was too large for a number: None. The place of its seed stays."""
        published = publish(
            performing("wikitext", "top-2", 0, 10.0),
            performing("wikitext", "top-2", 1, None),
            performing("wikitext", "top-2", 2, 14.0),
            performing("wikitext", "adaptive", 0, None),
            seeds=3,
        )
        row = row_of(table3_detail, published, "top-2", "wikitext")
        assert row["Inference Performance"] == 12.0
        assert row["Seeds"] == "0 1 2"
        empty = row_of(table3_detail, published, "adaptive", "wikitext")
        assert empty["Inference Performance"] is None
        assert row_of(table3, published, "adaptive", "wikitext")["Inference Performance"] is None
        assert row["Inference Performance by seed"] == "10 - 14"
        assert empty["Inference Performance by seed"] == "-"

    def test_a_row_whose_metric_overflowed_says_so(self) -> None:
        published = publish(performing("wikitext", "top-2", 0, None))
        row = row_of(table3_detail, published, "top-2", "wikitext")
        assert row["Inference Performance"] is None
        assert row["Reason for empty cells"]

    def test_a_metric_that_is_not_a_number(self) -> None:
        """One bad run must not keep the table from being written."""
        published = publish(
            performing("sst2", "top-2", 0, 0.5), performing("sst2", "top-2", 1, None), seeds=2
        )
        assert len(table3.rows(published)) == 4
        assert len(table3.shown(published)) == 4
        assert row_of(table3_detail, published, "top-2")["Seeds"] == "0 1"

    def test_top_1_at_inference_of_some_runs(self) -> None:
        published = publish(
            make_result("sst2", "top-2", 0), make_result("sst2", "top-2", 1, metric_top1=None), seeds=2
        )
        assert row_of(table3_detail, published, "top-2")["Inference Performance (top-1 gate)"] == 0.25

    def test_nothing_trained(self) -> None:
        """FLOPs per token of no tokens are not measured, so ratios to them are not either."""
        empty = dict.fromkeys(routed(1.0))
        published = publish(make_result("sst2", "top-2", flops=empty), make_result("sst2", "adaptive"))
        row = row_of(table3_detail, published, "adaptive")
        assert (row["FLOPs per token"], row["Norm. FLOPs"]) == (4.0, None)
        assert row_of(table3, published, "top-2")["Computation FLOPs"] is None
