"""`repro report`: tables derived from results, without torch, the same from a clone."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command_line import CommandLine, TrainedRuns
from factories import compare_gates, make_case, make_published, make_result, make_routing

from repro import plugins
from repro.errors import UserError
from repro.report import build
from repro.report.build import build_report, stale_files
from repro.report.claims.definition import claims
from repro.report.page import Picture, Section, cell, markdown, page
from repro.report.sections import SHOWN, sections
from repro.report.tables import base as tables
from repro.report.tables import runs
from repro.results.run import RunResult, read_result


def result(gate: str, seed: int = 0, **changes: object) -> RunResult:
    """A run whose layers differ."""
    layers = make_routing(
        0.25, share_by_count_per_layer=[[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]], load_cv_per_layer=[0.125, None]
    )
    routing = None if gate == "dense" else layers
    return make_result("sst2", gate, seed, routing=routing, routing_eval=routing, **changes)


def write(folder: Path, value: RunResult) -> None:
    place = folder / "runs" / value.run_id
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(value.to_json()), encoding="utf-8")


def write_study(folder: Path, *values: RunResult) -> None:
    """Publish runs that a study of schemes asked for."""
    for value in values:
        write(folder, value)
    (folder / "studies").mkdir()
    text = json.dumps(compare_gates(*values).studies["schemes"].to_json())
    (folder / "studies" / "schemes.json").write_text(text, encoding="utf-8")


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_rows_by_hand() -> None:
    dense, adaptive = runs.rows(make_published(result("dense"), result("adaptive")))[::-1]
    assert adaptive["Share two experts"] == 0.25
    assert adaptive["Share two experts by layer"] == "0.5000 0.0000"
    assert adaptive["Load CV by layer"] == "0.1250 "
    assert adaptive["Performance (top-1 at inference)"] == 0.25
    assert adaptive["Paper"] == 0.919
    assert dense["Paper"] == 0.912
    # What a dense model has not stays empty, never 0.
    for column in ("Share two experts", "Share two experts by layer", "Mean experts", "Load CV by layer"):
        assert dense[column] is None
    assert dense["Performance (top-1 at inference)"] is None


def test_rows_are_sorted_by_scheme_and_seed() -> None:
    rows = runs.rows(make_published(result("top-2", 1), result("dense", 0), result("top-2", 0)))
    assert [(row["Scheme"], row["Seed"]) for row in rows] == [("dense", 0), ("top-2", 0), ("top-2", 1)]


@pytest.mark.parametrize("name", plugins.names("tables"))
def test_every_table_has_its_columns(name: str) -> None:
    table = tables.load(name)
    assert table.FILE.endswith(".csv")
    compared = compare_gates(result("dense"), result("top-2"))
    timed = make_published(bench=[make_case()])
    for row in [*table.rows(compared), *table.rows(timed)]:
        assert tuple(row) == tuple(table.COLUMNS)


@pytest.mark.parametrize("name", SHOWN.values())
def test_the_report_shows_tables_that_can_be_shown(name: str) -> None:
    assert isinstance(tables.load(name), tables.ShownTable)


FIGURES = ("claims", "claims_tokens", "curves", "pareto")
"""What two schemes, without the baseline, give something to."""


def test_a_clone_without_run_folders_gives_the_same_files(tmp_path: Path) -> None:
    write_study(tmp_path, result("dense"), result("adaptive"))
    files = {path: path.read_bytes() for path in build_report(tmp_path)}
    assert {path.name for path in files} == {
        "runs.jsonl",
        "runs.csv",
        "table3.csv",
        "table3_detail.csv",
        "claims.csv",
        *(f"{name}.{suffix}" for name in FIGURES for suffix in ("svg", "png")),
        "report.md",
        "report.html",
    }
    assert read(tmp_path)[1]["Share two experts"] == ""
    shutil.rmtree(tmp_path / "runs")
    for path in files:
        if path.name != "runs.jsonl":
            path.unlink()
    assert {path: path.read_bytes() for path in build_report(tmp_path)} == files


def test_a_run_folder_stands_for_its_run(tmp_path: Path) -> None:
    write(tmp_path, result("dense", train_seconds=4.0))
    build_report(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    write(tmp_path, result("dense", train_seconds=8.0))
    write(tmp_path, result("dense", 1, train_seconds=4.0))
    build_report(tmp_path)
    assert [row["Train seconds"] for row in read(tmp_path)] == ["8.0", "4.0"]


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        build_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pixels_are_drawn_only_if_the_drawing_changed(tmp_path: Path) -> None:
    """Their bytes depend on the versions of libraries: they are neither compared nor made for nothing."""
    write_study(tmp_path, result("dense"), result("top-2"))
    build_report(tmp_path)
    curves, pareto = (tmp_path / "figures" / f"{name}.png" for name in ("curves", "pareto"))
    for path in (curves, pareto):
        path.write_bytes(b"of another version")
    assert stale_files(tmp_path) == []
    build_report(tmp_path)
    assert curves.read_bytes() == pareto.read_bytes() == b"of another version"
    run = tmp_path / "runs" / result("dense").run_id / "result.json"
    run.write_text(json.dumps(result("dense", metric__value=0.625).to_json()), encoding="utf-8")
    assert {"figures/pareto.svg", "report.html"} <= set(stale_files(tmp_path))
    assert not [name for name in stale_files(tmp_path) if name.endswith(".png") or "curves" in name]
    build_report(tmp_path)
    assert curves.read_bytes() == b"of another version"
    assert pareto.read_bytes().startswith(b"\x89PNG")
    curves.unlink()
    assert curves in build_report(tmp_path)
    assert curves.read_bytes().startswith(b"\x89PNG")


def test_check_draws_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path, result("dense"), result("top-2"))
    monkeypatch.setattr("repro.report.style.as_png", lambda figure: pytest.fail("drawn"))
    assert "figures/curves.svg" in stale_files(tmp_path)


def test_from_the_command_line(cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    answer = cli("report", "--out", tmp_path / "results")
    assert answer.status == 0, answer.err
    (row,) = read(tmp_path / "results" / "mini")
    expected = read_result(trained("adaptive").folder / "result.json")
    assert row["Run"] == expected.run_id
    assert float(row["Performance"]) == expected.metric.value


def test_check_finds_what_is_not_up_to_date(tmp_path: Path) -> None:
    write_study(tmp_path, result("dense"), result("top-2"))
    assert "runs.csv" in stale_files(tmp_path)
    assert not (tmp_path / "runs.csv").exists()
    build_report(tmp_path)
    (tmp_path / "claims.csv").write_text("made up\n")
    assert stale_files(tmp_path) == ["claims.csv"]


class Page(HTMLParser):
    """What a browser would make of a page: text by tag, addresses, identifiers, unclosed tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for key, value in attrs if key in ("href", "src") and value]
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in ("meta", "use", "path", "br"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data


def test_the_page_is_whole_and_needs_nothing_else(trained: TrainedRuns, tmp_path: Path) -> None:
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    scale = tmp_path / "results" / "mini"
    build_report(scale)
    parsed = Page((scale / "report.html").read_text(encoding="utf-8"))
    assert parsed.open == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    run_id = trained("adaptive").folder.name
    outside = [link for link in parsed.links if not link.startswith("#")]
    assert outside == [f"runs/{run_id}/result.json"]
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert "not measured" in parsed.cells
    assert run_id in parsed.cells
    assert f"| {run_id} |" in (scale / "report.md").read_text(encoding="utf-8")


def test_names_in_several_drawings_of_a_page_differ() -> None:
    svg = '<?xml version="1.0"?>\n<svg><path id="a"/><use href="#a" clip-path="url(#a)"/></svg>'
    pictures = [Picture(name=name, title="A", see="B.", svg=svg) for name in ("x", "y")]
    text = page("t", "i", [Section(title="Figures", pictures=pictures)])
    assert "<?xml" not in text
    for name in ("x", "y"):
        drawing = f'<path id="{name}-a"/><use href="#{name}-a" clip-path="url(#{name}-a)"/></svg>'
        caption = "</div><figcaption><b>A.</b> B.</figcaption></figure>"
        assert f'<svg role="img" aria-label="A">{drawing}{caption}' in text


SECTIONS = (
    Section(
        title="A & B",
        text='It\'s "so".',
        rows=[{"Run": "<b>|", "n ": 0.123456}, {"Run": "c", "n ": None}],
        notes=["<script>"],
    ),
    Section(
        title="Claims",
        counts=[("holds", 2)],
        rows=[{"Verdict": "does not hold", "Samples": 3}],
        details=[{"Why": "<i>", "Nothing": None}],
    ),
    Section(title="Figures", pictures=[Picture(name="x", title="1 > 0", see="<u>.", svg="<svg></svg>")]),
)


def test_text_of_the_page_is_escaped() -> None:
    text = page("<i>", "1 < 2", SECTIONS)
    assert "<title>&lt;i&gt;</title>" in text
    assert "<h1>&lt;i&gt;</h1>\n<p>1 &lt; 2</p>" in text
    assert '<nav aria-label="Sections"><a href="#claims">Claims</a> <a href="#figures">' in text
    link = '<a href="runs/&lt;b&gt;|/result.json">&lt;b&gt;|</a>'
    cells = f'<td class="short">{link}</td><td class="number" data-value="0.123456">0.123</td>'
    empty = '<td class="short"><a href="runs/c/result.json">c</a></td><td class="short"></td>'
    head = '<th scope="col">Run</th><th scope="col">n</th>'
    rows = f'<tr id="run-&lt;b&gt;|">{cells}</tr><tr id="run-c">{empty}</tr>'
    assert (
        '<section id="a---b"><h2>A &amp; B</h2>\n'
        "<p>It&#x27;s &quot;so&quot;.</p>\n"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>\n"
        '<ul class="note"><li>&lt;script&gt;</li></ul>\n'
        "</section>\n"
    ) in text
    assert '<ul class="counts"><li class="holds"><b>2</b> hold</li></ul>' in text
    rule = "<summary>does not hold</summary><dl><dt>Why</dt><dd>&lt;i&gt;</dd></dl>"
    assert f'<td class="fails"><details class="rule">{rule}</details></td>' in text
    assert "<figcaption><b>1 &gt; 0.</b> &lt;u&gt;.</figcaption></figure>" in text


def test_the_only_script_is_our_own() -> None:
    text = page("t", "i", SECTIONS)
    script = (Path(build.__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 1
    assert f"<script>\n{script}</script>" in text
    assert not re.search(r"https?:|\bfetch\(|innerHTML|eval\(|import\(", script)


def test_the_page_has_both_looks_and_one_for_paper() -> None:
    text = page("t", "i", SECTIONS)
    for words in ("prefers-color-scheme: dark", "@media print", 'name="viewport"'):
        assert words in text
    assert not re.search(r"@import|src=|url\((?!#)", text)


def test_rows_of_a_group_stand_below_its_heading() -> None:
    rows: list[tables.Row] = [
        {"Subject": subject, "n": number} for number, subject in enumerate(("x", "<y>", "x"))
    ]
    section = Section(title="A", rows=rows, group="Subject", is_folded=True)
    text = page("t", "i", [section])

    def body(name: str, *cells: int) -> str:
        heading = f'<tr class="group"><th scope="rowgroup" colspan="1">{name}</th></tr>'
        shown = "".join(f'<tr><td class="number" data-value="{cell}">{cell}</td></tr>' for cell in cells)
        return f"<tbody>{heading}{shown}</tbody>"

    assert f'<thead><tr><th scope="col">n</th></tr></thead>{body("x", 0, 2)}{body("&lt;y&gt;", 1)}' in text
    assert '<details class="fold"><summary>Show 3 rows</summary>' in text
    assert "| Subject | n |\n| --- | --- |\n| x | 0 |\n" in markdown("t", "i", [section])


def test_runs_of_a_row_lead_to_their_rows() -> None:
    rows: list[tables.Row] = [{"Scheme": "dense", "Runs": "a-0 a-1"}, {"Scheme": "top-1", "Runs": None}]
    text = page("t", "i", [Section(title="A", rows=rows)])
    links = '<a href="#run-a-0">a-0</a> <a href="#run-a-1">a-1</a>'
    assert f"<details><summary>2</summary>{links}</details>" in text
    assert '<td class="short">top-1</td><td class="short"></td>' in text


def test_the_only_picture_of_a_table_stands_beside_it_unless_it_is_wide() -> None:
    drawing = Picture(name="x", title="A", see="B.", svg="<svg></svg>")
    rows = [{"n": 1}]
    narrow = Section(title="A", rows=rows, pictures=[drawing])
    assert '<div class="beside">' in page("t", "i", [narrow])
    wide = Section(title="A", rows=rows, pictures=[replace(drawing, is_wide=True)])
    text = page("t", "i", [wide])
    assert '<div class="beside">' not in text
    assert '<figure class="wide"><div class="drawing" tabindex="0">' in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        ("a", "a"),
        (3, "3"),
        (12345, "12345"),
        (1234567, "1.23M"),
        (0.123456, "0.123"),
        (1234.5, "1234"),
        (1341000.0, "1.34M"),
        (-0.00005, "-5e-05"),
    ],
)
def test_cells_have_three_digits(value: tables.Cell, shown: str) -> None:
    assert cell(value) == shown


def test_a_number_that_is_not_finite_is_no_cell() -> None:
    with pytest.raises(OverflowError, match="a cell is inf"):
        cell(math.inf)


def test_heads_that_are_short_on_a_terminal_are_words_on_a_page() -> None:
    section = Section(title="A", rows=[{"Infl.": 1, "(paper) ": 2}])
    assert '<th scope="col">Inflation of time, share</th><th scope="col">Paper</th>' in page(
        "t", "i", [section]
    )


def test_the_report_as_markdown() -> None:
    assert (
        markdown("t", "i", SECTIONS)
        == """# t

i

## A & B

It's "so".

| Run | n |
| --- | --- |
| &lt;b>\\| | 0.123 |
| c |  |

* &lt;script>

## Claims

* 2 hold

| Verdict | Samples | Why | Nothing |
| --- | --- | --- | --- |
| does not hold | 3 | &lt;i> |  |


## Figures

![1 > 0](figures/x.svg)
*1 > 0. &lt;u>.*
"""
    )


class TestAnswer:
    """What the page opens with, of four claims' worth of runs: two seeds of the main schemes."""

    @pytest.fixture
    def parts(self) -> list[Section]:
        made = [result(gate, seed) for gate in ("top-2", "top-1", "adaptive") for seed in (0, 1)]
        return sections(compare_gates(*made), "mini", {})

    def test_the_answer_is_first_then_table_3_then_all_claims(self, parts: list[Section]) -> None:
        titles = [section.title for section in parts]
        assert titles == ["Does the paper hold?", "Table 3", "All claims", "Circumstances", "Runs"]

    def test_verdicts_are_counted(self, parts: list[Section]) -> None:
        counts = dict(parts[0].counts)
        assert list(counts) == ["holds", "does not hold", "open", "not measured"]
        assert sum(counts.values()) == len(claims())
        assert parts[0].text.startswith("Models and texts of this scale are toys")

    def test_the_main_claims_have_units(self, parts: list[Section]) -> None:
        assert len(parts[0].rows) <= 8
        row = parts[0].rows[0]
        # Equal runs: the same time in both seeds.
        assert row == {
            "Claim": "Adaptive gating takes less time than top-2 to the same loss",
            "Verdict": "open",
            "Ours": "1.00 times",
            "95 % interval": "1.00 to 1.00",
            "The paper": "0.83 times",
        }

    def test_all_claims_are_grouped_and_have_their_rules(self, parts: list[Section]) -> None:
        section = parts[2]
        assert section.group == "Subject"
        assert [heading for heading, _ in section.groups] == [
            "Time",
            "Quality",
            "FLOPs",
            "Tokens and layers",
            "AdaMoE",
        ]
        assert sum(len(rows) for _, rows in section.groups) == len(claims())
        rule = section.details[0]
        assert rule["Holds if"] == "the interval lies below 1 times"
        assert rule["The paper says"] == "0.831 on average of Table 3, 0.775 at best (abstract, Table 3)"

    def test_figures_stand_where_they_belong_and_new_ones_behind(self) -> None:
        names = ("table3", "mine", "claims_time")
        drawn = {name: Picture(name=name, title="A", see="B.", svg="<svg></svg>") for name in names}
        parts = sections(compare_gates(result("top-2"), result("dense")), "mini", drawn)
        places = {section.title: [one.name for one in section.pictures] for section in parts}
        assert places["Table 3"] == ["table3"]
        assert places["All claims"] == ["claims_time"]
        assert places["Figures"] == ["mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "minni"], "repro: --scale: unknown scale 'minni'. Did you mean 'mini'?"),
        ([], "no finished run"),
    ],
)
def test_bad_input(cli: CommandLine, tmp_path: Path, options: list[str], message: str) -> None:
    answer = cli("report", "--out", tmp_path, *options)
    assert answer.status == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
