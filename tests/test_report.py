"""`repro report`: tables derived from results, without torch, the same from a clone."""

import csv
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from repro import _page, plugins, report
from repro.errors import UserError
from repro.records import Published
from repro.tables import runs


def result(gate: str, seed: int, **changes: Any) -> dict[str, Any]:
    """A small but complete result, with round numbers."""
    dense = gate == "dense"
    routing = {
        "mean_experts": 1.25,
        "share_by_count": [0.0, 0.75, 0.25],
        "share_by_count_per_layer": [[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]],
        "load_cv_per_layer": [0.125, None],
        "logit_std_per_layer": [1.0, 2.0],
    }
    metric = {"name": "accuracy", "value": 0.5, "higher_is_better": True, "count": 8}
    return {
        "run_id": f"sst2-{gate}-s{seed}-00000000",
        "task": "sst2",
        "gate": gate,
        "seed": seed,
        "metric": metric,
        "metric_top1": None if dense else metric | {"value": 0.25},
        "eval_loss": 0.75,
        "steps": 10,
        "epochs": 2.0,
        "train_seconds": 4.0,
        "seconds_per_step": 0.5,
        "tokens_per_second": 100.0,
        "flops": {"per_token": 3.0, "per_token_executed": 4.0, "dense_per_token": 2.0},
        "routing": None if dense else routing,
        "routing_eval": None if dense else routing,
        "parameters": {"total": 7, "active": 5},
        "peak_memory_bytes": 11,
        "config": {"model": {"checkpoint": None}},
        "tokens": 400,
        "curve": [[0, 0.0, 1.0], [10, 4.0, 0.75]],
        "data": {"source": "synthetic"},
        "environment": {
            "processor": "a processor",
            "cores": 2,
            "packages": {"torch": "9.9"},
            "git_commit": "0123456789abcdef",
            "git_modified": False,
        },
    } | changes


def write(folder: Path, value: dict[str, Any]) -> None:
    place = folder / "runs" / value["run_id"]
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(value))


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def published(*results: dict[str, Any]) -> Published:
    return Published({entry["run_id"]: entry for entry in results}, {})


def test_rows_by_hand() -> None:
    dense, adaptive = runs.rows(published(result("dense", 0), result("adaptive", 0)))[::-1]
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
    found = runs.rows(published(result("top-2", 1), result("dense", 0), result("top-2", 0)))
    assert [(row["Scheme"], row["Seed"]) for row in found] == [("dense", 0), ("top-2", 0), ("top-2", 1)]


def test_every_table_has_its_columns() -> None:
    for name in plugins.names("tables"):
        table = plugins.load("tables", name)
        assert table.FILE.endswith(".csv")
        for row in table.rows(published(result("dense", 0), result("top-2", 0))):
            assert tuple(row) == tuple(table.COLUMNS)


def test_a_clone_without_run_folders_gives_the_same_files(tmp_path: Path) -> None:
    write(tmp_path, result("dense", 0))
    write(tmp_path, result("adaptive", 0))
    files = {path: path.read_bytes() for path in report.build_report(tmp_path)}
    assert {path.name for path in files} == {
        "runs.jsonl",
        "runs.csv",
        "claims.csv",
        "report.md",
        "report.html",
    }
    assert read(tmp_path)[1]["Share two experts"] == ""
    shutil.rmtree(tmp_path / "runs")
    assert {path: path.read_bytes() for path in report.build_report(tmp_path)} == files


def test_a_run_folder_stands_for_its_run(tmp_path: Path) -> None:
    write(tmp_path, result("dense", 0))
    report.build_report(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    write(tmp_path, result("dense", 0, train_seconds=8.0))
    write(tmp_path, result("dense", 1))
    report.build_report(tmp_path)
    assert [row["Train seconds"] for row in read(tmp_path)] == ["8.0", "4.0"]


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        report.build_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_from_the_command_line(repro: Any, trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    answer = repro("report", "--out", tmp_path / "results")
    assert answer.status == 0, answer.err
    (row,) = read(tmp_path / "results" / "mini")
    assert row["Run"] == trained("adaptive").result["run_id"]
    assert float(row["Performance"]) == trained("adaptive").result["metric"]["value"]


def test_check_finds_what_is_not_up_to_date(repro: Any, trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    scale = tmp_path / "results" / "mini"
    answer = repro("report", "--check", "--out", tmp_path / "results")
    assert answer.status == 1
    assert "runs.csv: not what the runs give; `repro report` rebuilds it" in answer.err
    assert not (scale / "runs.csv").exists()
    assert repro("report", "--out", tmp_path / "results").status == 0
    answer = repro("report", "--check", "--out", tmp_path / "results")
    assert (answer.status, answer.out, answer.err) == (0, "", "")
    (scale / "claims.csv").write_text("made up\n")
    answer = repro("report", "--check", "--out", tmp_path / "results")
    assert answer.status == 1
    assert [line.split(": ")[1] for line in answer.err.splitlines()] == [str(scale / "claims.csv")]


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
        found = dict(attrs)
        self.links += [value for key in ("href", "src") if (value := found.get(key))]
        self.ids += [value for key in ("id",) if (value := found.get(key))]
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


def test_the_page_is_whole_and_needs_nothing_else(trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    report.build_report(tmp_path / "results" / "mini")
    text = (tmp_path / "results" / "mini" / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert found.open == []
    assert len(set(found.ids)) == len(found.ids)
    run_id = trained("adaptive").result["run_id"]
    outside = [link for link in found.links if not link.startswith("#")]
    assert outside == [f"runs/{run_id}/result.json"]
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "not measured" in found.cells
    assert run_id in found.cells
    markdown = (tmp_path / "results" / "mini" / "report.md").read_text(encoding="utf-8")
    assert f"| {run_id} |" in markdown


def test_text_of_the_page_is_escaped() -> None:
    section = _page.Section(title="A & B", rows=[{"Run": "<b>|", "n": 0.123456}], notes=["<script>"])
    text = _page.page("<i>", "1 < 2", [section])
    assert "<b>" not in text
    assert "<script>" not in text
    assert "<i>" not in text
    assert "&lt;script&gt;" in text
    assert "0.1235" in text
    assert "| <b>\\| | 0.1235 |" in _page.markdown("t", "i", [section])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "minni"], "repro: --scale: unknown scale 'minni'. Did you mean 'mini'?"),
        ([], "no finished run"),
    ],
)
def test_bad_input(repro: Any, tmp_path: Path, options: list[str], message: str) -> None:
    answer = repro("report", "--out", tmp_path, *options)
    assert answer.status == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
