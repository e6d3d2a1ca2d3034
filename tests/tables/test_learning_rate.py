"""The search of learning rates by hand: losses on dev, the rate picked, what is to be recorded."""

from collections.abc import Mapping, Sequence

import pytest
from factories import compare_variants, make_published, make_result
from resolved import config

from repro.report.tables import learning_rate
from repro.results.published import Published
from repro.results.run import RunResult

RATES = {"0.5": 0.001, "1": 0.002, "2": 0.004}


def publish(losses: Mapping[str, Sequence[float] | None], task: str = "wmt19") -> Published:
    """Publish runs with these dev losses, by seed; None failed."""
    runs: dict[str, list[RunResult | str]] = {}
    for label, of_seed in losses.items():
        rate = RATES[label.split()[1]]
        runs[label] = (
            ["x-s0"]
            if of_seed is None
            else [
                make_result(
                    task, label, seed, dev_loss=loss, eval_loss=9.0, config__training={"learning_rate": rate}
                )
                for seed, loss in enumerate(of_seed)
            ]
        )
    return compare_variants("learning_rate", runs, task, {"x-s0": "the loss is nan"})


# Means of dense 0.95, 0.8 and 0.85; of top-2 0.5, 0.6 and 0.7.
HAND: dict[str, Sequence[float] | None] = {
    "dense 0.5": [0.9, 1.0],
    "dense 1": [0.7, 0.9],
    "dense 2": [0.8, 0.9],
    "top-2 0.5": [0.5, 0.5],
    "top-2 1": [0.6, 0.6],
    "top-2 2": [0.7, 0.7],
}


def test_the_rate_with_the_lowest_mean_loss_on_dev_is_picked() -> None:
    rows = learning_rate.rows(publish(HAND))
    assert all(tuple(row) == learning_rate.COLUMNS for row in rows)
    found = {(row["Scheme"], row["Learning rate"]): (row["Dev loss"], row["Picked"]) for row in rows}
    assert found == {
        ("dense", 0.001): (0.95, "no"),
        ("dense", 0.002): (0.8, "yes"),
        ("dense", 0.004): (0.85, "no"),
        ("top-2", 0.001): (0.5, "yes"),
        ("top-2", 0.002): (0.6, "no"),
        ("top-2", 0.004): (0.7, "no"),
    }
    assert rows[1]["Dev loss by seed"] == "0.7 0.9"
    # Half width of 0.7 and 0.9: 12.706 * 0.1.
    assert rows[1]["Dev loss interval"] == 1.3


def test_what_is_shown_and_what_is_to_be_recorded() -> None:
    published = publish(HAND)
    dense, top_2 = learning_rate.shown(published)
    assert {key: dense[key] for key in ("Scheme", "x 0.5", "x 1", "x 2", "Picked")} == {
        "Scheme": "dense",
        "x 0.5": pytest.approx(0.95),
        "x 1": pytest.approx(0.8),
        "x 2": pytest.approx(0.85),
        "Picked": 0.002,
    }
    assert top_2["Picked"] == 0.001
    assert learning_rate.notes(published)[1:] == [
        "[wmt19.learning_rate] dense = 0.002, top-2 = 0.001",
        "best at the edge of what was tried: Translation, top-2",
    ]


def test_a_rate_that_lacks_runs_is_not_picked() -> None:
    """One that diverged, and one with a seed less than the others."""
    losses = HAND | {"dense 1": None, "dense 2": [0.1]}
    rows = learning_rate.rows(publish(losses))
    assert [row["Picked"] for row in rows[:3]] == ["yes", None, "no"]
    assert rows[1]["Reason for empty cells"] == "x-s0: the loss is nan"
    assert learning_rate.notes(publish(losses))[-1] == "Translation, dense 1: x-s0: the loss is nan"


def test_no_study_no_rows() -> None:
    empty = make_published()
    assert (learning_rate.rows(empty), learning_rate.shown(empty), learning_rate.notes(empty)) == ([], [], [])


def test_the_rate_is_where_a_configuration_has_it() -> None:
    result = make_result(config=config("dense").to_dict())
    assert learning_rate.learning_rate(result) == 5e-4
