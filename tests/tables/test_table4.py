"""Table 4 from analyses made by hand."""

import json

import pytest
from factories import make_analysis, make_published, make_result, make_study

from repro.errors import UserError
from repro.report.tables import table4, table4_detail
from repro.report.tables.base import Row
from repro.results.analysis import Analysis
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
    # The groups of sequences agree: 0.6 over sqrt(0.21 / 40) is 8.28; t of 9 degrees, and three words.
    assert row["p"] == pytest.approx(1.7e-5, abs=1e-6)
    assert row["q"] == pytest.approx(5e-5, abs=1e-6)
    assert (row["Runs above base rate"], row["Runs"]) == (1, 1)
    assert row["Share two experts by layer"] == "0.9500 0.8500"
    assert detail(published, "word", "film")["p"] == pytest.approx(0.0405, abs=2e-4)
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


def test_a_word_that_one_seed_contradicts_is_not_listed() -> None:
    """In another seed "hardly" gets two experts less often than other words: 4 of 80 pairs."""
    other = make_analysis("sst2", seed=1).to_json()
    row = other["stacks"]["encoder"]["words"]["rows"][2]  # type: ignore[index]
    row[1:] = [20, [2, 2], 40, [2, 2], [4] * 10, [1] * 4 + [0] * 6]
    both = make_published(analyses=[make_analysis("sst2"), Analysis.parse(json.dumps(other), "made by hand")])
    assert detail(both, "word", "hardly")["Runs above base rate"] == 1
    assert table4.rows(both)[0]["Top-2 gating tokens"] is None


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


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (([500, 500], [300, 300]), "counts of different numbers of groups of sequences"),
        (([100] * 9 + [101], [60] * 10), "groups of sequences that do not add up to the whole"),
        (([100] * 10, [60] * 9 + [59]), "groups of sequences that do not add up to the whole"),
    ],
)
def test_groups_of_sequences_add_up(groups: tuple[list[int], list[int]], message: str) -> None:
    plain = make_analysis("sst2").to_json()
    stack = plain["stacks"]["encoder"]  # type: ignore[index]
    stack["parts"] = {"text": [1000, [200, 400], *groups]}
    with pytest.raises(UserError, match=message):
        Analysis.parse(json.dumps(plain), "analysis.json")


def test_runs_on_other_sequences_are_not_tested_together() -> None:
    """Their groups are not the same texts, so that resampling them says nothing."""
    few = make_analysis("sst2", seed=1).to_json()
    stack = few["stacks"]["encoder"]  # type: ignore[index]
    everything = [1000, [200, 400], [50] * 5 + [150] * 5, [60] * 10]
    stack["all"] = stack["parts"]["text"] = everything
    both = make_published(analyses=[make_analysis("sst2"), Analysis.parse(json.dumps(few), "analysis.json")])
    row = detail(both, "word", "hardly")
    assert (row["p"], row["q"]) == (None, None)
    assert table4.rows(both)[0]["Top-2 gating tokens"] is None
