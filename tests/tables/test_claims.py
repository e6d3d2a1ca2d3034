"""Claims: numbers by hand from hand-made runs, verdicts from intervals, the paper's averages."""

import statistics

import pytest
from factories import compare_gates, make_analysis, make_case, make_published, make_result, make_routing

from repro import paper
from repro.report.claims import CLAIMS, Claim
from repro.report.tables import claims
from repro.report.tables.base import Row
from repro.results.published import Published
from repro.results.run import RunResult
from repro.tasks.base import load


def run(
    task: str, scheme: str, seed: int, quality: float | None, seconds: float, share: float, flops: float
) -> RunResult:
    """A run whose loss falls from 1 to 0.5 in so many seconds."""
    return make_result(
        task,
        scheme,
        seed,
        metric__value=quality,
        curve=[(0, 0.0, 1.0), (10, seconds, 0.5)],
        flops__per_token=flops,
        routing=make_routing(share),
    )


def two_seeds() -> Published:
    """Adaptive gating takes 0.8 and 0.6 of top-2's time on SST-2, 0.9 and 0.7 on wikitext."""
    runs = []
    for seed, (sentiment, language) in enumerate([(0.8, 0.9), (0.6, 0.7)]):
        runs += [
            run("sst2", "top-2", seed, 0.8, 10, 1.0, 4.0),
            run("sst2", "adaptive", seed, 0.84, 10 * sentiment, 0.2, 3.0),
            run("wikitext", "top-2", seed, 20.0, 10, 1.0, 4.0),
            run("wikitext", "adaptive", seed, 21.0, 10 * language, 0.4, 3.5),
        ]
    return compare_gates(*runs)


def row_of(published: Published, start: str) -> Row:
    (row,) = [row for row in claims.rows(published) if str(row["Claim"]).startswith(start)]
    assert tuple(row) == claims.COLUMNS
    return row


def test_time_saved_by_hand() -> None:
    # Seed 0: (0.2 + 0.1) / 2 = 0.15; seed 1: (0.4 + 0.3) / 2 = 0.35. Mean 0.25, standard deviation
    # 0.1 sqrt(2), of the mean 0.1; t(1 degree, 97.5 %) = 12.706: half width 1.27.
    row = row_of(two_seeds(), "Adaptive gating takes less")
    assert (row["Ours"], row["Interval"], row["Samples"]) == (0.25, 1.3, 2)
    assert row["Verdict"] == "inconclusive"


def test_a_gain_counts_in_the_direction_of_the_metric() -> None:
    # Accuracy 0.84 / 0.8 - 1 = +0.05; perplexity 1 - 21 / 20 = -0.05: no gain on average, in both seeds.
    row = row_of(two_seeds(), "Adaptive gating performs as well")
    assert row["Ours"] == pytest.approx(0.0, abs=1e-12)
    assert row["Verdict"] == "holds"


def test_flops_and_share_by_hand() -> None:
    # Saved: (1/4 + 1/8) / 2; share: (0.2 + 0.4) / 2, the same in both seeds.
    assert row_of(two_seeds(), "Adaptive gating saves")["Ours"] == 0.1875
    share = row_of(two_seeds(), "A tenth to a quarter")
    assert share["Ours"] == 0.3
    assert share["Holds if"] == ">= 0.1 and <= 0.3"


def test_one_seed_is_inconclusive_and_nothing_is_not_measured() -> None:
    one = [result for result in two_seeds().results.values() if result.seed == 0]
    row = row_of(compare_gates(*one), "Adaptive gating takes less")
    assert (row["Ours"], row["Interval"], row["Verdict"]) == (0.15, None, "inconclusive")
    empty = claims.rows(make_published())
    assert len(empty) == len(CLAIMS)
    assert {row["Verdict"] for row in empty} == {"not measured"}
    assert {row["Ours"] for row in empty} == {None}


def test_deleted_runs_and_missing_numbers_leave_cells_empty() -> None:
    published = two_seeds()
    metrics = {
        key: result.model_copy(update={"metric": result.metric.model_copy(update={"value": None})})
        for key, result in published.results.items()
    }
    unmeasured = Published(metrics, published.studies)
    assert row_of(unmeasured, "Adaptive gating performs as well")["Verdict"] == "not measured"
    gone = {key: value for key, value in published.results.items() if "top-2" not in key}
    assert row_of(Published(gone, published.studies), "Adaptive gating takes")["Verdict"] == "not measured"


@pytest.mark.parametrize(
    ("limits", "interval", "outcome"),
    [
        ({"at_least": 0.0}, (0.0, 1.0), "holds"),
        ({"at_least": 0.0}, (-0.1, 1.0), "inconclusive"),
        ({"at_least": 0.0}, (-1.0, -0.1), "does not hold"),
        ({"at_most": 0.0}, (0.1, 0.2), "does not hold"),
        ({"at_most": 0.0}, (-0.2, -0.1), "holds"),
        ({"at_least": 0.1, "at_most": 0.3}, (0.15, 0.25), "holds"),
        ({"at_least": 0.1, "at_most": 0.3}, (0.25, 0.35), "inconclusive"),
        ({"at_least": 0.1, "at_most": 0.3}, (0.31, 0.35), "does not hold"),
    ],
)
def test_verdicts(limits: dict[str, float], interval: tuple[float, float], outcome: str) -> None:
    claim = Claim(text="", where="", paper="", quantity="", samples=lambda published: [], **limits)
    assert claims.verdict(claim, *interval) == outcome


def test_the_layer_claim_takes_every_case() -> None:
    cases = [
        make_case({"grouped": {0.8: (120, 0.76), 0.0: (200, 1.0)}, "dense": {0.0: (200, 9.0)}}),
        make_case({"grouped": {0.8: (120, 1.4), 0.0: (200, 2.0)}, "dense": {0.0: (200, 9.0)}}),
    ]
    published = make_published(bench=cases)
    row = row_of(published, "With 80 %")
    assert row["Samples"] == 2
    assert row["Ours"] == pytest.approx((0.24 + 0.3) / 2)


def test_averages_of_the_paper_are_those_of_its_tables() -> None:
    tables = paper.tables()
    table3, table5 = tables["table3"], tables["table5"]

    def sign(task: str) -> int:
        return -1 if table3[task]["metric"] == "perplexity" else 1

    def gain(scheme: str) -> float:
        return statistics.fmean(
            sign(task) * (row[scheme]["performance"] / row["top-2"]["performance"] - 1)
            for task, row in table3.items()
        )

    expected = {
        "Adaptive gating takes less": statistics.fmean(
            1 - row["adaptive"]["time"] for row in table3.values()
        ),
        "Adaptive gating performs as well": gain("adaptive"),
        "Adaptive gating saves": statistics.fmean(
            1 - row["adaptive"]["flops"] / row["top-2"]["flops"] for row in table3.values()
        ),
        "Top-1 performs worse": gain("top-1"),
        "Adaptive gating performs better": gain("adaptive") - gain("top-1"),
        "A threshold of 0.2": statistics.fmean(row[1] - row[3] for row in table5["time"].values()),
        "A larger threshold": statistics.fmean(
            sign(task) * (row[3] - row[0]) / table3[task]["top-2"]["performance"]
            for task, row in table5["performance"].items()
        ),
        "Without the curriculum training": statistics.fmean(tables["table6"]["time_inflation"].values()),
    }
    for start, value in expected.items():
        (claim,) = [claim for claim in CLAIMS if claim.text.startswith(start)]
        printed = [
            word
            for word in claim.paper.replace(";", " ").split()
            if word.strip("+-").replace(".", "").isdigit()
        ]
        assert any(float(word) == pytest.approx(value, rel=0.02) for word in printed), (start, value)


# --- claims about tokens -----------------------------------------------------------------------------


def test_claims_about_tokens_by_hand() -> None:
    # Negation: (38 + 34) of 80 pairs, 0.9; all: 600 of 2000, 0.3. Layers: 0.4 - 0.2. Every tenth alike.
    analyses = [
        *(make_analysis("sst2", seed=seed) for seed in (0, 1)),
        make_analysis("wikitext"),
        make_analysis("sst2", gate="top-2"),
    ]
    published = make_published(analyses=analyses)
    row = row_of(published, "Sentiment: negation")
    assert (row["Ours"], row["Interval"], row["Samples"], row["Verdict"]) == (0.6, 0.0, 2, "holds")
    row = row_of(published, "Sentiment: the share is stable")
    assert (row["Ours"], row["Verdict"]) == (0.2, "does not hold")
    assert row_of(published, "Sentiment: neutral")["Verdict"] == "not measured"
    row = row_of(published, "Text completion: later")
    assert (row["Ours"], row["Verdict"]) == (0.0, "inconclusive")
    # (600 + 500) of 2000 tokens, of the top-2 run alone.
    row = row_of(published, "Most tokens")
    assert (row["Ours"], row["Samples"]) == (0.55, 1)
    assert row_of(published, "Translation: the share falls")["Verdict"] == "not measured"


def test_categories_and_parts_of_claims_exist() -> None:
    from repro.data.corpora import dialogues, news, sentiment

    assert {"neutral", "negation", "contrast"} <= set(sentiment.CATEGORIES)
    assert "pronoun" in news.CATEGORIES
    assert "marker" in dialogues.CATEGORIES
    assert "question" in load("squad").COLUMNS
