"""Files of a results folder that say what they should not: names that lead elsewhere, wrong shapes, markup.

What is read from such a folder becomes names of files, cells of tables and text of pages. It is checked
first, and nothing is written while a file is damaged.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Json, TrainedRuns, only_run, read_object
from factories import make_analysis, make_case, make_environment, make_result, make_study
from refusals import contents, refused
from resolved import config, problems

from repro.report.build import build_report
from repro.results.files import append_jsonl, write_json
from repro.results.published import Published

ROOT = Path(__file__).parent.parent.parent
ELSEWHERE = ["../x", "../../../../tmp/x", "/tmp/x", "a/b", "..", "", "a\0b", "a\nb", "<b>", "x" * 300]
"""Names that would lead out of a folder, or into a tag."""
RESULTS = [make_result("sst2", gate) for gate in ("dense", "top-2", "adaptive")]


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    """`<results>/mini` with everything that a clone has."""
    folder = tmp_path / "results" / "mini"
    analysis = make_analysis()
    for name in ("studies", "analysis"):
        (folder / name).mkdir(parents=True)
    append_jsonl(folder / "runs.jsonl", [result.to_json() for result in RESULTS])
    rows = {result.gate: [result.run_id] for result in RESULTS}
    write_json(folder / "studies" / "schemes.json", make_study("schemes", {"sst2": rows}).to_json())
    write_json(folder / "analysis" / f"{analysis.run_id}.json", analysis.to_json())
    write_json(folder / "bench.json", {"cases": [make_case().to_json()]})
    return folder


@pytest.fixture
def results(trained: TrainedRuns, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    return tmp_path / "results"


def change(path: Path, key: str, value: object) -> None:
    """Replace what stands under a dotted key of a JSON file; KEY stands for the first key itself."""
    plain = read_object(path)
    part: Any = plain
    *places, last = key.split(".")
    for place in places:
        part = part[int(place)] if isinstance(part, list) else part[place]
    if last == "KEY":
        part[value] = part.pop(next(iter(part)))
    else:
        part[int(last) if isinstance(part, list) else last] = value
    path.write_text(json.dumps(plain), encoding="utf-8")


# --- names stay inside ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0/../../../../tmp/x", -1, 0.5, True, None])
def test_seed(cli: CommandLine, results: Path, value: object) -> None:
    """The same in both files, so that they do not contradict one another."""
    run = only_run(results)
    change(run / "config.json", "seed", value)
    change(run / "result.json", "seed", value)
    change(run / "result.json", "config.seed", value)
    before = contents(results.parent)
    for command in ("eval", "analyze", "list", "report"):
        arguments = {"list": ["runs"], "report": []}.get(command, [run.name])
        refused(cli(command, *arguments, "--out", results), r"(config|result)\.json: seed: ")
    assert contents(results.parent) == before


@pytest.mark.parametrize("key", ["run_id", "task", "gate", "scale", "metric.name"])
def test_names_in_results(scale: Path, key: str) -> None:
    run = scale / "runs" / RESULTS[0].run_id
    run.mkdir(parents=True)
    for name in ELSEWHERE:
        write_json(run / "result.json", RESULTS[0].to_json())
        change(run / "result.json", key, name)
        (problem,) = problems(Published.read, scale)
        assert problem.startswith(f"{run / 'result.json'}: {key}: ")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("studies/schemes.json", "study"),
        ("studies/schemes.json", "tasks.KEY"),
        ("studies/schemes.json", "tasks.sst2.dense.0"),
        ("analysis/sst2-adaptive-s0-00000000.json", "run_id"),
        ("analysis/sst2-adaptive-s0-00000000.json", "task"),
        ("analysis/sst2-adaptive-s0-00000000.json", "stacks.KEY"),
        ("analysis/sst2-adaptive-s0-00000000.json", "layers.0.stack"),
        ("bench.json", "cases.0.size"),
        ("bench.json", "cases.0.rows.0.implementation"),
    ],
)
def test_names_in_what_is_published(cli: CommandLine, scale: Path, file: str, key: str) -> None:
    whole = (scale / file).read_bytes()
    for name in ELSEWHERE:
        (scale / file).write_bytes(whole)
        change(scale / file, key, name)
        before = contents(scale.parent.parent)
        refused(cli("report", "--out", scale.parent), re.escape(f"{scale / file}: "))
        assert contents(scale.parent.parent) == before


@pytest.mark.parametrize("file", ["studies/schemes.json", "analysis/sst2-adaptive-s0-00000000.json"])
def test_a_file_under_the_name_of_another(cli: CommandLine, scale: Path, file: str) -> None:
    (scale / file).rename((scale / file).with_name("other.json"))
    refused(cli("report", "--out", scale.parent), r"other\.json: holds the .*, not 'other'; restore it")


# --- damage is seen before anything is replaced ---------------------------------------------------


def halves(text: str) -> str:
    return f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> theirs\n"


@pytest.mark.parametrize(
    "file",
    [
        "runs.jsonl",
        "bench.json",
        "studies/schemes.json",
        "analysis/sst2-adaptive-s0-00000000.json",
        "runs/sst2-dense-s0-00000000/result.json",
    ],
)
def test_wrong_shapes(cli: CommandLine, scale: Path, file: str) -> None:
    (scale / file).parent.mkdir(parents=True, exist_ok=True)
    for shape in ("{}", "[]", "null", "1", '"a"', ""):
        (scale / file).write_text(f"{shape}\n", encoding="utf-8")
        before = contents(scale)
        refused(cli("report", "--out", scale.parent), rf"{re.escape(file)}: .*; (restore it, or )?delete i")
        assert contents(scale) == before


def test_an_unknown_task_in_a_study(cli: CommandLine, scale: Path) -> None:
    write_json(scale / "studies" / "schemes.json", {"study": "schemes", "tasks": {"sst3": {"dense": []}}})
    answer = cli("report", "--out", scale.parent)
    refused(answer, r"schemes\.json: tasks\.sst3.*: unknown task 'sst3'\. Did you mean 'sst2'\?")


def test_every_damaged_file_is_named(cli: CommandLine, scale: Path) -> None:
    for name in ("bench.json", "studies/schemes.json"):
        (scale / name).write_text("{", encoding="utf-8")
    refused(cli("report", "--out", scale.parent), r"schemes\.json: cannot be read", r"bench\.json: cannot be")


LINES: Mapping[str, tuple[str, str]] = {
    "cut": ("line 2", "cut short"),
    "a conflict": ("line 1", "an unresolved merge conflict"),
    "no end": ("line 3", "cut short"),
    "an empty line": ("line 1", "cannot be read"),
}


def damaged(text: str, damage: str) -> str:
    """Damage `runs.jsonl`."""
    whole = {
        "cut": text[: int(0.6 * len(text))],
        "a conflict": halves(text),
        "no end": text.rstrip("\n"),
        "an empty line": "\n" + text,
    }
    return whole[damage]


@pytest.mark.parametrize("damage", LINES)
def test_lines_of_runs(cli: CommandLine, scale: Path, damage: str) -> None:
    path = scale / "runs.jsonl"
    path.write_text(damaged(path.read_text(encoding="utf-8"), damage), encoding="utf-8")
    before = contents(scale)
    line, problem = LINES[damage]
    way_out = "; restore it, or delete it to start from the run folders"
    refused(
        cli("report", "--out", scale.parent),
        re.escape(f"{path}: {line}: {problem}") + ".*" + re.escape(way_out),
    )
    assert contents(scale) == before


@pytest.mark.parametrize("file", ["runs.jsonl", "studies/schemes.json", "bench.json"])
def test_nothing_is_trained_over_damage(
    cli: CommandLine, scale: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro.cli.studies.execute", lambda *arguments, **options: pytest.fail("trained"))
    (scale / file).write_bytes((scale / file).read_bytes()[:-20])
    before = contents(scale)
    refused(cli("ablate", "schemes", "--tasks", "sst2", "--out", scale.parent), re.escape(file))
    assert contents(scale) == before


@pytest.mark.parametrize("file", ["config.json", "result.json"])
@pytest.mark.parametrize("content", ["{}", "[]", "null", "{", ""])
def test_files_of_a_run(cli: CommandLine, results: Path, file: str, content: str) -> None:
    run = only_run(results)
    (run / file).write_text(content, encoding="utf-8")
    before = contents(results)
    for command in ("eval", "analyze", "list"):
        refused(cli(command, "runs" if command == "list" else run.name, "--out", results), re.escape(file))
    refused(cli.train("adaptive", results), rf"{re.escape(file)}: |holds a run with another configuration")
    assert contents(results) == before


def test_a_run_without_its_configuration_is_listed_as_damaged(cli: CommandLine, results: Path) -> None:
    (only_run(results) / "config.json").unlink()
    refused(cli("list", "runs", "--out", results), r"config\.json: cannot be read .*; delete its folder")


def test_the_file_that_cannot_be_replaced_is_named(cli: CommandLine, scale: Path) -> None:
    (scale / "table3.csv").mkdir()
    refused(cli("report", "--out", scale.parent), r"mini/table3\.csv: cannot be written \(Is a directory\)")


# --- markup ---------------------------------------------------------------------------------------

MARKUP = "<script>alert(1)</script>|<img src=x onerror=a>&#60;[a](javascript:b)`$\\frac$\n# c"


def hostile_analysis() -> Json:
    """An analysis whose every free text is markup."""
    plain = make_analysis(data__source=MARKUP, data__split=MARKUP).to_json()
    stack = json.loads(json.dumps(plain))["stacks"]["encoder"]
    stack["words"]["rows"].append([MARKUP, 40, [40, 40], 40, [40, 40]])
    for table in ("categories", "parts", "lengths", "frequency"):
        stack[table][MARKUP] = [50, [50, 50]]
    activations = {"layer": 1, "tokens": [[MARKUP, [0.25] * 4]]}
    return plain | {"stacks": {"encoder": stack}, "activations": activations}


class Tags(HTMLParser):
    """The tags of a page, and the names of all their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value or "" for name, value in attributes if name in ("href", "src")]


def test_pages_show_markup_as_text(scale: Path) -> None:
    environment = make_environment(
        processor=MARKUP, device=MARKUP, git_commit=MARKUP, packages={"torch": MARKUP, "transformers": MARKUP}
    )
    hostile = [
        make_result("sst2", gate, seed=seed, environment=environment, data__source=MARKUP)
        for gate in ("dense", "top-2", "adaptive")
        for seed in (0, 1)
    ]
    (scale / "runs.jsonl").unlink()
    append_jsonl(scale / "runs.jsonl", [result.to_json() for result in hostile])
    for study in ("schemes", "threshold", "curriculum", "gates", "adamoe"):
        rows = {result.gate: [result.run_id, "missing"] for result in hostile}
        rows |= {MARKUP + gate: run_ids for gate, run_ids in rows.items()}
        tasks = make_study(study, {"sst2": rows}, {"missing": MARKUP})
        write_json(scale / "studies" / f"{study}.json", tasks.to_json())
    write_json(next(scale.glob("analysis/*.json")), hostile_analysis())
    build_report(scale)
    page = (scale / "report.html").read_text(encoding="utf-8")
    assert page.count("alert(1)") > 10
    tags = Tags(page)
    assert not tags.tags & {"img", "iframe", "object", "embed", "form"}
    assert page.count("<script") == 1  # that of the page itself, see tests/test_report.py
    assert not {name for name in tags.attributes if name.startswith("on")}
    known = r"#|runs/[\w.-]+/result\.json|analysis/[\w.-]+\.html|figures/"
    assert not [link for link in tags.links if not re.match(known, link)]
    text = (scale / "report.md").read_text(encoding="utf-8")
    assert text.count("alert(1)") > 10
    assert not re.search(r"<[a-zA-Z/!?]|(?<!\\)\]\(javascript|(?<!\\)`|&#60;", text)
    assert not [line for line in text.splitlines() if line.startswith("# c")]
    for figure in scale.glob("figures/*.svg"):
        assert not Tags(figure.read_text(encoding="utf-8")).tags & {"script", "img"}


# --- what stands in a path ------------------------------------------------------------------------


def test_places_are_printed_as_they_are(cli: CommandLine, scale: Path) -> None:
    out = scale.parent.parent / "a[v2]b [red] :smile:"
    for command in ("report", "analyze"):
        (line,) = refused(cli(command, "--out", out), r"no finished run")
        assert f" {out}" in line
    assert f"in {out}\n" in cli("list", "runs", "--out", out).out
    shutil.copytree(scale.parent, out)
    assert f"{out}/mini/report.md\n" in cli("report", "--out", out).out
    published = out / "published" / "mini"
    shutil.copytree(out / "mini", published)
    (published / "table3.csv").write_text("", encoding="utf-8")
    answer = cli("report", "--out", out, "--check")
    assert answer.status == 1
    assert f" {published}/table3.csv: " in answer.err


def test_a_run_in_such_a_place(cli: CommandLine, results: Path) -> None:
    """Tables have cells with paths, and scales are named by folders."""
    out = results.rename(results.with_name("a[v2]b"))
    (out / "mini").rename(out / "[v2]")
    listed = cli("list", "runs", "--out", out).out
    assert "[v2]" in listed
    answer = cli("eval", only_run(out) / "x", "--out", out)
    refused(answer, re.escape(f"{out}: unknown run"))


def test_a_line_end_in_a_place(cli: CommandLine, tmp_path: Path) -> None:
    (line,) = refused(cli("report", "--out", tmp_path / "a\nb\x1b[31m"), r"no finished run")
    assert r"a\nb\x1b[31m" in line


@pytest.mark.parametrize("name", ["a" * 256, "ä" * 128, "a/" * 3000])
def test_places_that_no_file_system_takes(cli: CommandLine, name: str) -> None:
    for command in ("list runs", "list tasks --scale mini", "report", "analyze", "bench", "eval x"):
        (line,) = refused(cli(*command.split(), "--out", name), r"--out .*: (is|has) ")
        assert len(line) < 200


@pytest.mark.parametrize("option", ["--out", "--data", "--model"])
def test_inputs_that_no_file_system_takes(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "b/" + "ä" * 128
    for command in (["train", "--task", "sst2", "--gate", "dense"], ["ablate", "schemes"]):
        refused(cli(*command, option, name), rf"{option} .*: has a name of 256 bytes")
    if option == "--data":
        for command in (["eval", "x"], ["analyze"]):
            refused(cli(*command, option, name), rf"{option} .*: has a name of 256 bytes")
    assert contents(tmp_path) == {}


MADE = {
    "OUT=my results": "--out 'my results'",
    "OUT=a[v2]b": "--out 'a[v2]b'",
    "OUT=it's": r"--out 'it'\''s'",
    "OUT=~/a b": "--out ~/'a b'",
    "OUT=a;b&c": "--out 'a;b&c'",
    "SCALE=a b": "--scale 'a b'",
}


@pytest.mark.parametrize("variable", MADE)
def test_make_takes_spaces(variable: str) -> None:
    assert made("table3", "report", "table1", "analysis", variable).count(MADE[variable]) == 4


def test_make_takes_lists_with_spaces() -> None:
    line = made("table3", "TASKS=sst2, wikitext", "DATA=my data")
    assert "--data 'my data' --tasks 'sst2, wikitext'" in line


def made(*arguments: str) -> str:
    """What `make` would do."""
    command = ["make", "-n", "-o", ".venv/bin/repro", *arguments]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    return done.stdout


# --- one value, one run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "key", "values"),
    [
        ("sst2", "model.config.hidden_dropout_prob", (0, 0.0, -0.0)),
        ("sst2", "model.config.layer_norm_eps", (1, 1.0)),
        ("sst2", "gate.threshold", (0, 0.0, -0.0)),
        ("sst2", "training.warmup", (0, 0.0, -0.0)),
        ("sst2", "training.learning_rate", (1, 1.0)),
        ("wmt19", "model.config.dropout", (0, 0.0, -0.0)),
        ("wmt19", "task.length_penalty", (1, 1.0)),
        ("wikitext", "model.config.attn_pdrop", (0, 0.0, -0.0)),
    ],
)
def test_numbers_that_are_the_same(task: str, key: str, values: tuple[float, ...]) -> None:
    assert len({config(task=task, overrides={key: value}).run_id for value in values}) == 1
