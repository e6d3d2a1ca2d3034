"""Pages: links lead somewhere, keys of files are documented, numbers have a file that they come from."""

from pathlib import Path

import overview
import pages
import pytest
import scales
import statements
from factories import compare_gates, compare_variants, make_published, make_result
from fields import files_of_run, keys_of, undocumented

from repro.results.published import Published


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_links_and_anchors_exist(page: Path) -> None:
    assert list(pages.broken_links(page)) == []


def test_statements_with_numbers_have_files() -> None:
    assert list(statements.problems()) == []


def test_every_key_of_a_file_is_documented() -> None:
    assert list(undocumented()) == []


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page in a repository of its own, with one published table."""
    for module in (pages, statements):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in ("docs", "results/mini", "results/published/mini"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "table3.csv").write_text("")
    return tmp_path / "docs" / "page.md"


def test_broken_links(page: Path) -> None:
    page.write_text(
        "# A, b & `c`\n\n[1](#a-b--c) [2](#d) [3](other.md) [4](https://example.org/x) `[5](no-link.md)`\n\n"
        "```\n[6](code.md)\n```\n\n"
        "![7](../results/published/mini/table3.csv) [8](../results/mini/table3.csv)\n"
        "[9](../../etc)\n\n[wrapped\nin two](lines.md)\n"
    )
    found = [problem.split(": ", 1)[1] for problem in pages.broken_links(page)]
    assert found == [
        "#d: no such heading",
        "other.md: no such file",
        "../results/mini/table3.csv: not in git; link to results/published",
        "../../etc: no such file",
        "lines.md: no such file",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Time falls by 12 %, FLOPs by 0.25, from 1,700 tokens.", ["12", "0.25", "1,700"]),
        ("Tables 3, 5 and 6, Figure 1, eq. (4) and section 4.3 of EMNLP 2023.", []),
        (
            "top-2 in fp32 on SST-2 since 1988, seeds 0-2, `0.5`, [2310.07188](https://arxiv.org/abs/2310.07188)",
            [],
        ),
        ("between -0.36 and 0", ["-0.36", "0"]),
    ],
)
def test_numbers(text: str, found: list[str]) -> None:
    assert statements.numbers(text) == found


def test_where_numbers_come_from(page: Path) -> None:
    page.write_text(
        "# A\n\nFrom `table3.csv`: 12 %.\n\n## B\n\n"
        "* 5 runs\n* 6 runs, [7](../results/published/mini/table3.csv)\n\n"
        "## C\n\nAt commit `24c65c3`.\n\n| a |\n| --- |\n| 8 |\n\n"
        "<!-- part: written by `make docs` from x.csv -->\n\n9 runs\n\n<!-- end of part -->\n"
    )
    table = "results/published/mini/table3.csv"
    assert [(block.kind, found, files) for block, found, files in statements.statements([page])] == [
        ("paragraph", ["12"], ["table3.csv"]),
        ("item", ["5"], [table]),
        ("item", ["6", "7"], [table]),
        ("row", ["8"], ["commit 24c65c3"]),
        ("paragraph", ["9"], ["x.csv"]),
    ]


def test_what_is_wrong_with_numbers(page: Path) -> None:
    page.write_text("# A\n\nSee [b](b.md): 12 %.\n\n## B\n\n* `table3.csv`: 1, 2, 3 and 4\n* 1, 2 and 3\n")
    assert list(statements.problems([page])) == [
        "docs/page.md:3: 12: no file is named that this comes from",
        "docs/page.md:7: 4 numbers in one item; a table shows them better",
    ]


def test_tables_of_keys() -> None:
    lines = keys_of("StepRecord", "RoutingRecord", "RunResult")
    loss = "Mean task loss over the loss terms of the step, without auxiliary losses."
    assert f"| `loss` | `float` | {loss} |" in lines
    share = "Share of (token, layer) pairs given two or more experts; null for a dense model."
    assert f"| `share_two` | `float or null` | {share} |" in lines
    inherited = lines.index("### `RoutingRecord`")
    assert any(line.startswith("| `mean_experts` |") for line in lines[inherited:])
    assert any(line.startswith("| `status` | `'finished'` |") for line in lines)
    assert any(line.startswith("| `neighbours` | `dict[str, int]` |") for line in lines)


def test_table_of_files() -> None:
    assert any(line.startswith("| `result.json` |") for line in files_of_run())


def test_the_readme_is_for_someone_in_a_hurry() -> None:
    assert len((pages.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.fixture
def two_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale with two runs of one seed, and one of which nothing is published."""
    found = {
        "mini": compare_gates(make_result(gate="top-2"), make_result(gate="adaptive")),
        "small": make_published(),
    }

    def published(scale: str) -> Published:
        return found[scale]

    monkeypatch.setattr(scales, "published", published)


def test_claims_have_a_column_for_each_scale_that_measures_one(two_scales: None) -> None:
    head, _, *rows = overview.claims_about("FLOPs", "mini", "small")
    assert head == "| claim | the paper | `mini`: ours, 95 % interval |"
    (row,) = rows
    assert row.startswith("| Adaptive gating saves floating-point operations against top-2 (4.4, Table 3) |")
    assert "**open**" in row


def test_what_is_not_measured_is_said(two_scales: None) -> None:
    mini, small = overview.missing("mini", "small")[2:]
    assert "`schemes`" not in mini
    assert "`schemes`" in small
    assert overview.shown("gates", "small") == ["Not measured."]
    assert overview.models("small") == overview.cost("small") == ["Not measured."]


def test_models_and_cost_of_a_scale(two_scales: None) -> None:
    (model,) = overview.models("mini", "small")[2:]
    assert model.startswith("| Sentiment analysis | `mini` |")
    (cost,) = overview.cost("mini", "small")[2:]
    assert cost.startswith("| `schemes` | `mini` | 1 | 2 | 1 | ")


def test_a_table_has_the_columns_of_the_page(two_scales: None) -> None:
    head = overview.shown("table3_detail", "mini")[0]
    assert head.startswith("| Task | Scheme | Time to top-2's loss | 95 % interval | Paper |")
    assert "Runs" not in head


def test_what_explains_what_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Behind by 1 nat in every seed; with layers of one scale by 0.2, 0.1 and 0.3, or 0.2 +- 0.25 of them.
    losses = {
        "top-2 raw": [2.0, 3.0, 4.0],
        "top-2 fitted": [1.5, 2.5, 3.5],
        "top-1 raw": [3.0, 4.0, 5.0],
        "top-1 fitted": [1.7, 2.6, 3.8],
    }
    runs = {
        name: [make_result("sst2", name, seed, eval_loss=loss) for seed, loss in enumerate(of_seed)]
        for name, of_seed in losses.items()
    }
    found = compare_variants("weights", runs)
    monkeypatch.setattr(scales, "published", lambda scale: found)
    assert overview.explained("mini")[2:] == [
        "| Sentiment analysis | top-1 behind top-2 | +1 ± 0 | scale +0.8 ± 0.25 | explains it |",
        "| Sentiment analysis | top-1 behind top-2 | +1 ± 0 | rule +0.2 ± 0.25 | undecided |",
        "",
        "What explains what: top-1 behind top-2: scale explains it on Sentiment analysis; "
        "rule undecided on Sentiment analysis.",
    ]
    monkeypatch.setattr(scales, "published", lambda scale: make_published())
    assert overview.explained("mini") == ["Not measured."]


def test_runs_of_which_no_claim_speaks_have_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare_variants("weights", {"top-2 raw": [make_result("sst2", "top-2 raw", 0, eval_loss=2.0)]})
    monkeypatch.setattr(scales, "published", lambda scale: found)
    assert scales.answer("mini") == scales.judgements("mini") == ["Not measured."]
