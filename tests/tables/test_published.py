"""What tables are derived from: run folders, `runs.jsonl` and studies."""

import json
from pathlib import Path

import pytest
from factories import make_published, make_result, make_study

from repro.errors import UserError
from repro.results.published import Published
from repro.results.run import RunResult
from repro.results.study import Study


def result(run_id: str, steps: int = 20) -> RunResult:
    return make_result(run_id=run_id, steps=steps)


def write_run(scale: Path, value: RunResult) -> None:
    folder = scale / "runs" / value.run_id
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(value.to_json()), encoding="utf-8")


def write_jsonl(scale: Path, *values: RunResult) -> None:
    text = "".join(json.dumps(value.to_json()) + "\n" for value in values)
    (scale / "runs.jsonl").write_text(text, encoding="utf-8")


def write_study(scale: Path, study: Study) -> None:
    (scale / "studies").mkdir(exist_ok=True)
    path = scale / "studies" / f"{study.study}.json"
    path.write_text(json.dumps(study.to_json()), encoding="utf-8")


class TestResults:
    def test_nothing_there(self, tmp_path: Path) -> None:
        assert Published.read(tmp_path) == make_published()
        assert Published.read(tmp_path / "never-made") == make_published()

    def test_union_sorted_by_run_id(self, tmp_path: Path) -> None:
        write_run(tmp_path, result("c"))
        write_run(tmp_path, result("a"))
        write_jsonl(tmp_path, result("d"), result("b"))
        assert list(Published.read(tmp_path).results) == ["a", "b", "c", "d"]

    def test_a_run_folder_stands_for_its_run(self, tmp_path: Path) -> None:
        """It was done again after `runs.jsonl` was written."""
        write_jsonl(tmp_path, result("a", steps=1), result("b", steps=2))
        write_run(tmp_path, result("a", steps=7))
        assert Published.read(tmp_path).results == {"a": result("a", steps=7), "b": result("b", steps=2)}

    def test_of_two_lines_the_later_stands(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path, result("a", steps=1), result("a", steps=2))
        assert Published.read(tmp_path).results == {"a": result("a", steps=2)}

    def test_an_unfinished_run_is_left_out(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path, result("a"))
        (tmp_path / "runs" / "c").mkdir(parents=True)
        (tmp_path / "runs" / "c" / "config.json").write_text("{}")
        assert list(Published.read(tmp_path).results) == ["a"]

    def test_a_result_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        written = make_result("wikitext", "dense", metric__value=None, interleaved_with=["a"])
        write_jsonl(tmp_path, written)
        assert Published.read(tmp_path) == make_published(written)

    def test_a_result_that_is_not_json_is_named(self, tmp_path: Path) -> None:
        write_run(tmp_path, result("a"))
        path = tmp_path / "runs" / "a" / "result.json"
        path.write_text("{")
        with pytest.raises(UserError, match=r"result\.json: cannot be read"):
            Published.read(tmp_path)


PLAN = make_study(
    "schemes",
    {
        "sst2": {"top-2": ["sst2-0", "sst2-1", "sst2-2"], "dense": ["sst2-9"]},
        "squad": {"dense": ["squad-0"]},
    },
    {"sst2-1": "MemoryError: too big"},
)


class TestStudies:
    @pytest.fixture
    def published(self, tmp_path: Path) -> Published:
        """Of the runs planned, one is a line, one a folder; and there is one that nobody asked for."""
        write_study(tmp_path, PLAN)
        write_study(tmp_path, make_study("other", {"sst2": {"top-2": ["sst2-0"]}}))
        write_jsonl(tmp_path, result("sst2-0"), result("stranger"))
        write_run(tmp_path, result("squad-0"))
        return Published.read(tmp_path)

    def test_all_are_read(self, published: Published) -> None:
        assert list(published.studies) == ["other", "schemes"]
        assert published.studies["schemes"] == PLAN

    def test_finished_runs_in_the_order_asked_for(self, published: Published) -> None:
        assert published.of_study("schemes") == {
            "sst2": {"top-2": [result("sst2-0")], "dense": []},
            "squad": {"dense": [result("squad-0")]},
        }
        assert published.of_study("other") == {"sst2": {"top-2": [result("sst2-0")]}}

    def test_unknown_study(self, published: Published) -> None:
        assert published.of_study("threshold") == {}

    def test_why_runs_are_missing(self, published: Published) -> None:
        assert published.missing("schemes", "sst2", "top-2") == [
            "sst2-1: MemoryError: too big",
            "sst2-2: not run",
        ]
        assert published.missing("schemes", "sst2", "dense") == ["sst2-9: not run"]
        assert published.missing("schemes", "squad", "dense") == []

    def test_a_run_that_was_done_since_is_not_missing(self, published: Published, tmp_path: Path) -> None:
        write_run(tmp_path, result("sst2-1"))
        assert Published.read(tmp_path).missing("schemes", "sst2", "top-2") == ["sst2-2: not run"]

    def test_a_study_that_is_not_json_is_named(self, tmp_path: Path) -> None:
        write_study(tmp_path, PLAN)
        (tmp_path / "studies" / "schemes.json").write_text("[]")
        with pytest.raises(UserError, match=r"schemes\.json: .*object"):
            Published.read(tmp_path)
