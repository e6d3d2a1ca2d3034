"""`repro analyze` as a user calls it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from repro.report.build import build_report


@pytest.fixture
def results(trained: Any, tmp_path: Path) -> Path:
    """A finished adaptive run and a dense one."""
    for gate in ("adaptive", "dense"):
        shutil.copytree(trained(gate).results, tmp_path / "results", dirs_exist_ok=True)
    return tmp_path / "results"


def run_of(results: Path, gate: str) -> Path:
    (path,) = results.glob(f"*/runs/*-{gate}-*")
    return path


def test_all_runs_with_a_gate(cli: Any, results: Path) -> None:
    answer = cli("analyze", "--out", results)
    assert answer.status == 0, answer.err
    name = run_of(results, "adaptive").name
    assert answer.out.startswith(f"{name}: 32 of 32 sequences\n")
    assert "most often two experts: " in answer.out
    assert max(map(len, answer.out.splitlines()[:-1])) <= 80
    scale = results / "mini"
    assert {path.name for path in (scale / "analysis").iterdir()} == {f"{name}.json", f"{name}.html"}
    assert (scale / "table4.csv").read_text().startswith("Task,Top-2 gating tokens\nSentiment analysis,")
    assert (scale / "table4_detail.csv").is_file()
    figures = {path.name for path in (scale / "figures").iterdir()}
    names = ("claims_tokens", "figure1", "figure2", "load")
    assert figures == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}


def test_a_clone_gives_the_same_files(cli: Any, results: Path) -> None:
    """Run folders are not in git; what was published of the analyses is."""
    cli("analyze", "--out", results)
    scale = results / "mini"
    before = {path: path.read_bytes() for path in [*scale.glob("*.csv"), *scale.glob("figures/*")]}
    shutil.rmtree(scale / "runs")
    build_report(scale)
    assert {path: path.read_bytes() for path in before} == before
    shutil.rmtree(scale / "analysis")
    build_report(scale)


def test_json_of_a_named_run(cli: Any, results: Path) -> None:
    path = run_of(results, "adaptive")
    printed = cli("analyze", path.name, "--out", results, "--samples", 4, "--json").json()
    assert set(printed) == {"analyses", "files"}
    (analysis,) = printed["analyses"]
    assert analysis["run_id"] == path.name
    assert analysis["data"]["sequences"] == 4
    assert "samples" not in analysis
    assert all(Path(name).is_file() for name in printed["files"])


def test_another_data_folder(cli: Any, results: Path, data_folder: Path) -> None:
    """Real text has no labels."""
    answer = cli("analyze", "--out", results, "--data", data_folder, "--json")
    (analysis,) = answer.json()["analyses"]
    assert analysis["data"]["source"] == "folder"
    assert analysis["stacks"]["encoder"]["categories"] == {}


def test_every_run_that_cannot_be_analysed_is_named(cli: Any, results: Path) -> None:
    dense, adaptive = run_of(results, "dense"), run_of(results, "adaptive")
    unfinished = adaptive.with_name("unfinished")
    shutil.copytree(adaptive, unfinished)
    (unfinished / "result.json").unlink()
    shutil.rmtree(adaptive / "model")
    answer = cli("analyze", "unknown", dense.name, unfinished, adaptive.name, "--out", results)
    assert answer.status == 2
    lines = answer.err.splitlines()
    assert len(lines) == 4
    for line, said in zip(
        lines,
        ["unknown run 'unknown'", "the run is dense", "not a finished run", "no saved model in it"],
        strict=True,
    ):
        assert line.startswith("repro: ")
        assert said in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no finished run with a gate and a saved model, of 0 finished"),
        (["--scale", "minni"], "--scale: unknown scale 'minni'. Did you mean 'mini'?"),
        (["some-run", "--scale", "mini"], "--scale: has no effect on runs that are named"),
        (["--samples", "0"], "--samples"),
    ],
)
def test_bad_input(cli: Any, tmp_path: Path, options: list[str], message: str) -> None:
    answer = cli("analyze", *options, "--out", tmp_path)
    assert answer.status == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
