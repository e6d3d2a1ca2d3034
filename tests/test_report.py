"""`repro report`: tables derived from results, without torch, the same from a clone."""

import csv
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command_line import CommandLine, TrainedRuns
from factories import compare_gates, make_case, make_published, make_result, make_routing

from repro import plugins
from repro.errors import UserError
from repro.report.build import SHOWN, build_report, stale_files
from repro.report.page import Picture, Section, markdown, page
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


def test_a_clone_without_run_folders_gives_the_same_files(tmp_path: Path) -> None:
    write_study(tmp_path, result("dense"), result("adaptive"))
    files = {path: path.read_bytes() for path in build_report(tmp_path)}
    assert {path.name for path in files} == {
        "runs.jsonl",
        "runs.csv",
        "table3.csv",
        "table3_detail.csv",
        "claims.csv",
        "curves.svg",
        "curves.png",
        "pareto.svg",
        "pareto.png",
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
    pictures = [Picture(name=name, title="A", svg=svg) for name in ("x", "y")]
    text = page("t", "i", [Section(title="Figures", pictures=pictures)])
    assert "<?xml" not in text
    for name in ("x", "y"):
        drawing = f'<svg><path id="{name}-a"/><use href="#{name}-a" clip-path="url(#{name}-a)"/></svg>'
        assert f"<figure>{drawing}<figcaption>A</figcaption></figure>" in text


SECTIONS = (
    Section(
        title="A & B",
        text='It\'s "so".',
        rows=[{"Run": "<b>|", "n ": 0.123456}, {"Run": "c", "n ": None}],
        notes=["<script>"],
    ),
    Section(title="Claims", rows=[{"Verdict": "does not hold", "Samples": 3}]),
    Section(title="Figures", pictures=[Picture(name="x", title="1 > 0", svg="<svg></svg>")]),
)


def test_text_of_the_page_is_escaped() -> None:
    text = page("<i>", "1 < 2", SECTIONS)
    assert "<title>&lt;i&gt;</title>" in text
    assert "<h1>&lt;i&gt;</h1>\n<p>1 &lt; 2</p>" in text
    assert '<nav><a href="#a---b">A &amp; B</a> <a href="#claims">' in text
    link = '<a href="runs/&lt;b&gt;|/result.json">&lt;b&gt;|</a>'
    cells = f'<td class="text">{link}</td><td class="number">0.1235</td>'
    empty = '<td class="text"><a href="runs/c/result.json">c</a></td><td class="text"></td>'
    head = '<th scope="col">Run</th><th scope="col">n</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{cells}</tr><tr>{empty}</tr></tbody></table>"
    assert (
        '<section id="a---b"><h2>A &amp; B</h2>\n'
        "<p>It&#x27;s &quot;so&quot;.</p>\n"
        f'<div class="scroll" tabindex="0">{table}</div>\n'
        '<ul class="note"><li>&lt;script&gt;</li></ul>\n'
        "</section>\n"
    ) in text
    assert '<td class="fails">does not hold</td><td class="number">3</td>' in text
    assert (
        "<figure><svg></svg><figcaption>1 &gt; 0</figcaption></figure>\n</section>\n</body>\n</html>\n"
        in text
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
| &lt;b>\\| | 0.1235 |
| c |  |

* &lt;script>

## Claims

| Verdict | Samples |
| --- | --- |
| does not hold | 3 |


## Figures

![1 > 0](figures/x.svg)
"""
    )


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
