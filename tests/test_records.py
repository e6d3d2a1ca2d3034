"""Files of a run are whole, whoever writes them at the same time; results are what their JSON says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from factories import make_analysis, make_case, make_environment, make_result, make_routing

from repro.errors import UserError
from repro.machine import current_environment
from repro.results.bench import Bench
from repro.results.files import read_json, write_json
from repro.results.published import Published
from repro.results.records import multi_expert
from repro.results.run import parse_result, read_result
from repro.results.study import Study

PROGRAM = """
import sys
from pathlib import Path
from repro.results.files import write_json
for _ in range(100):
    write_json(Path(sys.argv[1]), {"writer": sys.argv[2] * 10_000})
"""


def test_processes_that_write_one_file_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abc"]
    errors = [writer.communicate()[1] for writer in writers]
    assert errors == ["", "", ""]
    assert read_json(path)["writer"] in {name * 10_000 for name in "abc"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"number": 1})
    with pytest.raises(TypeError):
        write_json(path, {"number": 2, "nothing in JSON": object()})
    assert read_json(path) == {"number": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_environment_has_what_decides_how_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "123")
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    monkeypatch.setenv("HOME_OF_OMP_", "no")
    openmp = current_environment(torch.device("cpu")).openmp
    assert openmp["GOMP_SPINCOUNT"] == "123"
    assert openmp["OMP_PROC_BIND"] == "true"
    assert "HOME_OF_OMP_" not in openmp


# --- results as values -------------------------------------------------------------------------------

RESULTS = Path(__file__).parents[1] / "results" / "published"
SCALES = sorted(path for path in RESULTS.glob("*") if path.is_dir())
"""Folders of the published results."""


@pytest.mark.parametrize("scale", SCALES, ids=lambda folder: folder.name)
def test_published_results_are_written_as_they_were_read(scale: Path) -> None:
    path = scale / "runs.jsonl"
    if not path.exists():
        pytest.skip(f"no runs of scale {scale.name} are published")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines
    assert [json.dumps(parse_result(line, "line").to_json()) for line in lines] == lines


@pytest.mark.parametrize("scale", SCALES, ids=lambda folder: folder.name)
def test_published_studies_analyses_and_timings_are_written_as_they_were_read(scale: Path) -> None:
    files = [path for name in ("studies", "analysis") for path in (scale / name).glob("*.json")]
    files += scale.glob("bench.json")
    if not files:
        pytest.skip(f"no studies, analyses or timings of scale {scale.name} are published")
    published = Published.read(scale)
    values = {f"studies/{name}.json": study.to_json() for name, study in published.studies.items()}
    values |= {f"analysis/{name}.json": one.to_json() for name, one in published.analyses.items()}
    if (scale / "bench.json").exists():
        values["bench.json"] = Bench(cases=list(published.bench), parallel=list(published.parallel)).to_json()
    assert set(values) == {str(path.relative_to(scale)) for path in files}
    for name, value in values.items():
        assert json.dumps(value) == json.dumps(read_json(scale / name)), name


def test_keys_on_disk_are_those_of_the_schema() -> None:
    written = make_result(cpu_steal_fraction=0.25, interleaved_with=["a"]).to_json()
    assert (written["stolen_share"], written["beside"]) == (0.25, ["a"])
    assert not {"cpu_steal_fraction", "interleaved_with"} & set(written)
    older = make_result().to_json()
    assert not {"stolen_share", "beside"} & set(older)
    read = parse_result(json.dumps(older), "older")
    assert (read.cpu_steal_fraction, read.interleaved_with) == (None, None)
    assert parse_result(json.dumps(written), "result").interleaved_with == ["a"]


def test_shares_of_tokens_with_several_experts() -> None:
    """None, one, two and three experts: 30 % of the tokens have two or more."""
    routing = make_routing(
        0.5, share_by_count=[0.1, 0.6, 0.2, 0.1], share_by_count_per_layer=[[0.5, 0.5], None]
    )
    assert routing.share_multi_expert == pytest.approx(0.3)
    assert routing.share_multi_expert_per_layer == [0, None]
    assert multi_expert([]) is None
    assert [layer.multi_expert for layer in make_analysis().layers] == [200, 400]


def test_derived_values_of_a_result() -> None:
    result = make_result(config__model__checkpoint="gpt2", curve=[(0, 0.0, 2.0), (4, 1.0, 1.5)])
    assert (result.checkpoint, result.schedule) == ("gpt2", "wsd")
    assert make_result().checkpoint is None
    assert make_environment().code_state == "01234567"
    assert make_environment(git_modified=True).code_state == "01234567+"
    assert make_environment(git_commit=None, git_modified=None).code_state == ""
    assert make_case(precision="bf16").key == ("bert", 16, 100, "bf16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "20"}, "steps: Input should be a valid integer"),
        ({"stepz": 20}, "stepz: Extra inputs are not permitted"),
        ({"metric": {"name": "f1"}}, r"metric.value: Field required \(and 2 more\)"),
        ({"curve": [[0, 0.0, "low"]]}, "curve.0.2: Input should be a valid number"),
        ({"schema_version": 1}, "schema version 1, expected 2; written by another version"),
        ({"schema_version": 99}, "schema version 99, expected 2"),
        ({"schema_version": None}, "schema version None, expected 2"),
    ],
)
def test_what_is_wrong_in_a_result_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, make_result().to_json() | change)
    with pytest.raises(UserError, match=rf"result\.json: {message}"):
        read_result(path)


def test_a_study_that_failed_nowhere_needs_not_say_so() -> None:
    study = Study.parse('{"study": "schemes", "tasks": {"sst2": {"dense": ["a"]}}}', "schemes.json")
    assert study.failed == {}


def test_an_analysis_of_another_version_says_which(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    write_json(tmp_path / "analysis" / "old.json", {"version": 1, "anything": 1})
    with pytest.raises(UserError, match=r"old\.json: version 1, expected 2; .*another version of repro"):
        Published.read(tmp_path)
