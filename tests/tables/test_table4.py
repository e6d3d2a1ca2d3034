"""Table 4 from analyses made by hand."""

import pytest
from factories import make_analysis, make_published, make_result, make_study

from repro.report.tables import table4, table4_detail
from repro.report.tables.base import Row
from repro.results.published import Published


def detail(published: Published, kind: str, item: str) -> Row:
    (row,) = [row for row in table4_detail.rows(published) if (row["Kind"], row["Item"]) == (kind, item)]
    return row


def test_words_significantly_above_the_base_rate() -> None:
    """ "film" and "." are significantly below it."""
    assert table4.rows(make_published(analyses=[make_analysis("sst2")])) == [
        {"Task": "Sentiment analysis", "Top-2 gating tokens": "hardly"}
    ]


def test_detail_by_hand() -> None:
    published = make_published(analyses=[make_analysis("sst2")])
    row = detail(published, "word", "hardly")
    assert tuple(row) == table4_detail.COLUMNS
    assert (row["Tokens"], row["Occurrences"]) == (40, 20)
    assert row["Share two experts"] == 0.9  # 72 of 80
    assert row["Share two experts (any subword)"] == 0.95  # 38 of 40
    assert (row["Base rate"], row["Difference"]) == (0.3, 0.6)
    assert row["q"] == pytest.approx(0.0, abs=1e-10)
    assert (row["Runs above base rate"], row["Runs"]) == (1, 1)
    assert row["Share two experts by layer"] == "0.9500 0.8500"
    assert detail(published, "word", "film")["p"] == pytest.approx(0.0157, abs=2e-4)
    assert detail(published, "category", "negation")["Share two experts"] == 0.9
    assert detail(published, "position", "0-10 %")["q"] == pytest.approx(1.0)


def test_the_first_row_names_the_runs() -> None:
    published = make_published(analyses=[make_analysis("sst2"), make_analysis("sst2", seed=1)])
    row = table4_detail.rows(published)[0]
    assert (row["Kind"], row["Tokens"], row["Runs"]) == ("all", 2000, 2)
    assert row["Run ids"] == "sst2-adaptive-s0-00000000 sst2-adaptive-s1-00000000"


def test_seeds_are_added_up() -> None:
    published = make_published(analyses=[make_analysis("sst2"), make_analysis("sst2", seed=1)])
    row = detail(published, "word", "hardly")
    assert (row["Tokens"], row["Share two experts"], row["Runs above base rate"]) == (80, 0.9, 2)


def test_only_the_runs_of_the_study() -> None:
    """An adaptive run with another threshold is not mixed in."""
    kept, other = make_analysis("sst2"), make_analysis("sst2", seed=1)
    study = make_study("schemes", {"sst2": {"adaptive": [kept.run_id]}})
    row = table4_detail.rows(make_published(studies=[study], analyses=[kept, other]))[0]
    assert row["Run ids"] == kept.run_id


def test_other_gates_are_no_part_of_it() -> None:
    published = make_published(analyses=[make_analysis("sst2", "top-2")])
    assert table4.rows(published) == []
    assert table4_detail.rows(published) == []


def test_a_task_without_analysis_has_an_empty_cell() -> None:
    rows = table4.rows(make_published(make_result("squad"), analyses=[make_analysis("sst2")]))
    assert [row["Top-2 gating tokens"] for row in rows] == ["hardly", None]
    assert rows[1]["Task"] == "Question and Answer"


def test_nothing_counted() -> None:
    """A run over text without a single word."""
    empty = {
        "all": [0, [0, 0]],
        "words": {"all": [0, [0, 0]], "types": 0, "rows": []},
        "categories": {},
        "parts": {},
        "positions": [[0, [0, 0]]] * 10,
        "lengths": {},
        "frequency": {},
    }
    published = make_published(analyses=[make_analysis("sst2", stacks={"encoder": empty})])
    assert table4.rows(published) == [{"Task": "Sentiment analysis", "Top-2 gating tokens": None}]
    row = detail(published, "position", "0-10 %")
    assert (row["Share two experts"], row["Base rate"], row["p"], row["q"]) == (None, None, None, None)
