"""`repro ablate` from end to end on small runs: runs, tables, failures, Ctrl-C, what it would take."""

import csv
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, CommandLine, Json, Settings, read_lines, read_object, snapshot
from in_process import do_in_process
from nursery import Started
from planned import SCHEMES
from rich.console import Console

from repro.cli import console
from repro.config import RunConfig
from repro.report.tables import table3
from repro.results.files import RunPaths
from repro.results.run import RunResult, read_result
from repro.run.execute import execute

TWO_TASKS: dict[str, object] = {
    "training.epochs": 2,
    "training.batch_size": 8,
    "data.train_samples": 16,
    "data.validation_samples": 8,
    "data.max_length": 32,
    "model.vocab_size": 300,
    "experts.count": 2,
    "evaluation.points": 2,
    "evaluation.batch_size": 16,
}
"""Of BERT as of GPT-2, at the width of `mini`; whole epochs, so that tokens can be told beforehand."""


def sets(settings: Settings) -> list[str]:
    return [f"--set={key}={value}" for key, value in settings.items()]


def arguments(out: Path, tasks: str, settings: Settings, *options: object) -> list[str]:
    study = ["ablate", "schemes", "--tasks", tasks, "--lanes", "1", "--out", str(out)]
    return [*study, *map(str, options), *sets(settings)]


def results(out: Path) -> dict[str, Json]:
    """Run id -> result of all finished runs."""
    return {path.parent.name: read_object(path) for path in sorted(out.glob("mini/runs/*/result.json"))}


def table(out: Path, name: str = "table3") -> list[dict[str, str]]:
    with (out / "mini" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def study(out: Path) -> Json:
    return read_object(out / "mini" / "studies" / "schemes.json")


def contents(out: Path) -> dict[str, bytes]:
    """Published files of the scale."""
    files = [*(out / "mini").glob("*.*"), *(out / "mini" / "studies").iterdir()]
    return {path.name: path.read_bytes() for path in files}


class Done:
    """A finished study of two tasks, and what the commands before and for it said."""

    def __init__(self, cli: CommandLine, out: Path) -> None:
        self.out = out
        self.arguments = arguments(out, "wikitext,sst2", TWO_TASKS)
        self.planned = cli(*self.arguments, "--dry-run", "--json")
        self.exists_after_planning = out.exists()
        self.answer = cli(*self.arguments)


@pytest.fixture(scope="module")
def done(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Read only."""
    return Done(cli, tmp_path_factory.mktemp("study") / "results")


class TestPretrained:
    def test_from_a_pretrained_model(self, cli: CommandLine, tmp_path: Path, bert_folder: Path) -> None:
        """The estimate knows the model's sizes; the table says what was fine-tuned."""
        own = {key: value for key, value in TWO_TASKS.items() if not key.startswith("model.")}
        settings = own | {"experts.init": "upcycle", "training.epochs": 1}
        command = arguments(tmp_path, "sst2", settings, "--model", bert_folder, "--variants", "dense,top-1")
        planned = cli(*command, "--dry-run", "--json").json()
        answer = cli(*command)
        assert answer.status == 0, answer.err
        assert "* Sentiment analysis: from tiny-bert" in answer.out
        made = results(tmp_path)
        assert len(made) == 2
        assert {row["run"]: row["params"] for row in planned["runs"]} == {
            run_id: result["parameters"]["total"] for run_id, result in made.items()
        }
        report = (tmp_path / "mini" / "report.md").read_text(encoding="utf-8")
        assert "from tiny-bert" in report


class TestStudy:
    def test_all_runs_were_made(self, done: Done) -> None:
        assert done.answer.status == 0, done.answer.err
        finished = results(done.out)
        assert sorted((one["task"], one["gate"]) for one in finished.values()) == sorted(
            (task, gate) for task in ("wikitext", "sst2") for gate in SCHEMES
        )
        assert {one["status"] for one in finished.values()} == {"finished"}
        assert {path.name for path in (done.out / "mini").iterdir()} == {
            "runs",
            "studies",
            "runs.csv",
            "runs.jsonl",
            "table3.csv",
            "table3_detail.csv",
            "claims.csv",
            "figures",
            "report.html",
            "report.md",
        }

    def test_the_record_names_the_runs(self, done: Done) -> None:
        plan = study(done.out)
        assert plan["failed"] == {}
        assert {task: list(rows) for task, rows in plan["tasks"].items()} == {
            "wikitext": list(SCHEMES),
            "sst2": list(SCHEMES),
        }
        for task, rows in plan["tasks"].items():
            for scheme, (run_id,) in rows.items():
                result = results(done.out)[run_id]
                assert (result["task"], result["gate"], result["seed"]) == (task, scheme, 0)

    def test_the_table_is_made_of_the_results(self, done: Done) -> None:
        rows, details = table(done.out), table(done.out, "table3_detail")
        assert [(row["Task"], row["Scheme"]) for row in rows] == [
            (task, scheme) for task in ("Sentiment analysis", "Text completion") for scheme in SCHEMES
        ]
        finished = results(done.out)
        for row, detail in zip(rows, details, strict=True):
            run = finished[detail["Runs"]]
            assert run["gate"] == row["Scheme"] == detail["Scheme"]
            assert float(row["Inference Performance"]) == pytest.approx(run["metric"]["value"], rel=1e-3)
            assert float(row["Computation FLOPs"]) == pytest.approx(run["flops"]["per_token"], rel=1e-3)
            assert float(detail["Final loss"]) == pytest.approx(run["dev_loss"], rel=1e-5)
            losses = [loss for _, _, loss in run["curve"]]
            if row["Scheme"] == "top-2":
                assert min(losses) <= float(detail["Target loss"]) <= max(losses)
                # It may not have learned anything in so few steps.
                cells = row["Norm. Training Time"], detail["Reached"]
                assert cells == ("1.0", "1 of 1") or (cells == ("", "") and detail["Reason for empty cells"])

    def test_what_it_says(self, done: Done) -> None:
        """Progress on stderr, a line a run; the table and its files on stdout."""
        lines = done.answer.err.splitlines()
        assert lines[0] == "8 runs, 0 of them finished before"
        titles = [f"{task} {scheme} seed 0" for task in ("wikitext", "sst2") for scheme in SCHEMES]
        for number, title in enumerate(titles, 1):
            assert f"[{number}/8] {title}" in lines
            (end,) = [line for line in lines if line.startswith(f"{title}: ")]
            assert end.endswith(" s of training")
        assert "Traceback" not in done.answer.err
        tables, report = done.answer.out.splitlines()[-2:]
        assert tables == "Beside the report: claims.csv runs.csv table3.csv table3_detail.csv"
        assert report == f"All of it, with pictures: {done.out / 'mini' / 'report.html'}"

    def test_what_was_learnt_stands_above_the_table(self, done: Done) -> None:
        lines = done.answer.out.splitlines()
        assert lines[0].startswith("Of 11 claims ")
        assert lines[1].startswith("Time, adaptive over top-2: ")
        assert lines[2].startswith("Loss, adaptive less top-2: ")
        assert lines[3].startswith("Task ")

    def test_the_table_on_a_terminal(self, done: Done) -> None:
        """Everything but the paths, which are not broken, fits into 80 columns; no number is cut."""
        lines = [line for line in done.answer.out.splitlines() if str(done.out) not in line]
        shown = [line for line in lines if not line.startswith("* ")]
        assert all(len(line) <= 80 for line in shown)
        words = {word for line in shown for word in line.split()}
        numbers = {float(word) for word in words if word.replace(".", "", 1).isdigit()}
        for row in table(done.out):
            cells = row["Norm. Training Time"], row["Inference Performance"]
            assert {float(cell) for cell in cells if cell} <= numbers
        assert {"Accuracy", "Sentiment", "adaptive", "16.3", "0.918"} <= words

    def test_a_note_for_every_empty_cell(self, done: Done) -> None:
        notes = [line for line in done.answer.out.splitlines() if line.startswith("* ")]
        empty = [row for row in table(done.out) if not row["Norm. Training Time"]]
        assert not any("not timed in turns" in note for note in notes)
        for row in empty:
            assert any(note.startswith(f"* {row['Task']}, {row['Scheme']}: ") for note in notes)

    def test_repeats_nothing(self, cli: CommandLine, done: Done, tmp_path: Path) -> None:
        shutil.copytree(done.out, tmp_path / "results")
        before = contents(tmp_path / "results")
        runs = snapshot(tmp_path / "results" / "mini" / "runs")
        answer = cli(*arguments(tmp_path / "results", "wikitext,sst2", TWO_TASKS))
        assert answer.status == 0
        assert answer.err == "8 runs, 8 of them finished before\n"
        assert answer.out.replace(str(tmp_path / "results"), str(done.out)) == done.answer.out
        assert contents(tmp_path / "results") == before
        assert snapshot(tmp_path / "results" / "mini" / "runs") == runs

    def test_json(self, cli: CommandLine, done: Done, tmp_path: Path) -> None:
        shutil.copytree(done.out, tmp_path / "results")
        printed = cli(*arguments(tmp_path / "results", "sst2", TWO_TASKS), "--json").json()
        assert set(printed) == {"tables", "files"}
        (rows,) = printed["tables"].values()
        assert [tuple(row) for row in rows] == [table3.COLUMNS] * 8
        as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
        assert as_text == table(tmp_path / "results")
        assert all(Path(path).is_file() for path in printed["files"])
        assert {Path(path).name for path in printed["files"]} > {"table3.csv", "table3_detail.csv"}

    def test_the_same_from_a_clone(self, cli: CommandLine, done: Done, tmp_path: Path) -> None:
        """Run folders are not in git; `repro report` rebuilds the tables without them."""
        copy = tmp_path / "results"
        shutil.copytree(done.out, copy, ignore=shutil.ignore_patterns("runs", "table3*.csv"))
        assert cli("report", "--out", copy).status == 0
        assert contents(copy) == contents(done.out)

    def test_another_seed_is_added(self, cli: CommandLine, done: Done, tmp_path: Path) -> None:
        """Only its runs are made; the other task's rows stay as they were."""
        out = tmp_path / "results"
        shutil.copytree(done.out, out)
        before = table(out, "table3_detail")
        answer = cli(*arguments(out, "sst2", TWO_TASKS, "--seeds", 2))
        assert answer.status == 0, answer.err
        assert answer.err.startswith("8 runs, 4 of them finished before\n[1/4] sst2 dense seed 1\n")
        assert len(results(out)) == 12
        after = table(out, "table3_detail")
        assert [row["Seeds"] for row in after] == ["0 1"] * 4 + ["0"] * 4
        assert after[4:] == before[4:]
        assert all(row["Inference Performance interval"] for row in after[:4])
        assert [len(rows["top-2"]) for rows in study(out)["tasks"].values()] == [1, 2]


class TestSeveralStudies:
    def test_a_run_in_common_is_made_once(self, cli: CommandLine, tmp_path: Path) -> None:
        """The adaptive run is the threshold 0.1. In turns: both tables, and no time apart."""
        command = ["ablate", "schemes", "threshold", "--tasks", "sst2", "--out", tmp_path, *sets(SMALL)]
        answer = cli(*command, "--turns", 2)
        assert answer.status == 0, answer.err
        assert "8 runs, 0 of them finished before\n" in answer.err  # 4 + 6 - top-2 and 0.1
        finished = results(tmp_path)
        assert len(finished) == 8
        assert all(set(one["beside"]) == set(finished) - {run_id} for run_id, one in finished.items())
        rows = [len(table(tmp_path, name)) for name in ("table3_detail", "table5_detail")]
        assert rows == [4, 6]
        assert "not timed in turns" not in answer.out
        assert {"schemes:", "threshold:"} <= set(answer.out.splitlines())
        assert set(cli(*command, "--json").json()["tables"]) == {"schemes", "threshold"}

    def test_values_belong_to_one_study(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli("ablate", "schemes", "threshold", "--values", "0.1", "--out", tmp_path)
        assert (answer.status, answer.out) == (2, "")
        assert answer.err.splitlines() == ["repro: --values: give one study, not schemes, threshold"]

    def test_each_study_takes_the_variants_that_it_has(self, cli: CommandLine, tmp_path: Path) -> None:
        """Top-2 is a row of both; 0.3 is a row of the second, `random` of the third alone."""
        command = [
            "ablate",
            "schemes",
            "threshold",
            "--tasks",
            "sst2",
            "--out",
            tmp_path,
            "--dry-run",
            "--json",
        ]
        rows = cli(*command, "--variants", "top-2,dense,0.3").json()["runs"]
        assert [row["run"].split("-s0")[0] for row in rows] == ["sst2-dense", "sst2-top-2", "sst2-adaptive"]
        answer = cli(*command, "--variants", "dense")
        assert answer.status == 2
        assert answer.err.splitlines() == [
            "repro: --variants: names no variant of threshold; leave the study out"
        ]
        answer = cli(*command, "--variants", "dense,random,0.31")
        assert answer.status == 2
        assert [line.split(".")[0] for line in answer.err.splitlines()] == [
            "repro: --variants: unknown variant 'random'",
            "repro: --variants: unknown variant '0",
        ]


class TestDryRun:
    def test_writes_nothing(self, cli: CommandLine, done: Done, tmp_path: Path) -> None:
        assert not done.exists_after_planning
        shutil.copytree(done.out, tmp_path / "results")
        before = snapshot(tmp_path / "results")
        answer = cli(*arguments(tmp_path / "results", "sst2", TWO_TASKS, "--dry-run"))
        assert answer.status == 0
        assert snapshot(tmp_path / "results") == before

    def test_steps_tokens_and_parameters_are_those_then_made(self, done: Done) -> None:
        rows = done.planned.json()["runs"]
        finished = results(done.out)
        assert [row["run"] for row in rows] == [
            run_id for runs in study(done.out)["tasks"].values() for (run_id,) in runs.values()
        ]
        for row in rows:
            made = finished[row["run"]]
            folder = done.out / "mini" / "runs" / row["run"]
            # What a trunk did beyond its margin, to reach a target, is not planned.
            trunk = read_lines(folder / "steps.jsonl")[: math.ceil(1.1 * made["steps"])]
            steps = trunk + read_lines(folder / "cooldown" / "steps.jsonl")
            assert row["state"] == "to do"
            assert row["steps"] == len(steps)
            assert row["tokens"] == pytest.approx(sum(step["tokens"] for step in steps), rel=0.1)
            assert row["params"] == made["parameters"]["total"]
            if made["gate"] != "adaptive":
                assert row["FLOPs"] == pytest.approx(made["flops"]["per_token"] * row["tokens"], rel=0.02)

    def test_says_what_is_finished_and_how_long_the_rest_takes(self, cli: CommandLine, done: Done) -> None:
        assert done.planned.err.endswith("8 runs, about 0 minutes of training\n")
        answer = cli(*arguments(done.out, "sst2", TWO_TASKS, "--seeds", 2, "--dry-run", "--json"))
        rows = answer.json()["runs"]
        assert [row["state"] == "to do" for row in rows] == [False] * 4 + [True] * 4
        seconds = [value for row in rows[:4] for key, value in row.items() if key.split()[-1] == "s"]
        assert seconds == [0, 0, 0, 0]

    def test_some_of_the_variants(self, cli: CommandLine, done: Done) -> None:
        command = arguments(done.out, "sst2", TWO_TASKS, "--dry-run", "--json")
        rows = cli(*command, "--variants", "adaptive, top-2").json()["runs"]
        assert [row["state"] for row in rows] == ["done"] * 4  # those that are finished stay beside them
        rows = cli(*command, "--seeds", 2, "--variants", "adaptive, top-2").json()["runs"]
        assert [row["run"].split("-s")[0] for row in rows] == ["sst2-top-2", "sst2-adaptive"] * 2
        assert [row["state"] == "to do" for row in rows] == [False, False, True, True]
        answer = cli(*command, "--variants", "adaptiv")
        assert answer.status == 2
        (line,) = answer.err.splitlines()
        assert "--variants: unknown variant 'adaptiv'. Did you mean 'adaptive'?" in line

    def test_no_value_is_cut_on_a_terminal(
        self, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the longest run ids there are, in 80 columns; one run is finished."""
        monkeypatch.setattr("repro.cli.studies.matmul_speed", lambda device: 1e9)
        command = arguments(tmp_path, "cnn_dailymail", TWO_TASKS, "--dry-run")
        first = cli(*command, "--json").json()["runs"][0]["run"]
        (tmp_path / "mini" / "runs" / first).mkdir(parents=True)
        (tmp_path / "mini" / "runs" / first / "result.json").write_text("{}")
        rows = cli(*command, "--json").json()["runs"]
        assert [row["state"] == "to do" for row in rows] == [False, True, True, True]
        lines = cli(*command).out.splitlines()
        assert all(len(line) <= 80 for line in lines)
        for row in rows:
            (line,) = [line for line in lines if line.startswith(row["run"])]
            *cells, gigabytes = line.split()
            *values, before = row.values()  # the peak of this process, which only grows
            assert cells == " ".join(console._cell(value) for value in values).split()
            assert float(gigabytes) >= before > 0
            assert (row["about s"] > 0) == (row["run"] != first)

    def test_no_header_is_cut_on_a_terminal(self, cli: CommandLine, done: Done) -> None:
        lines = cli(*done.arguments, "--dry-run").out.splitlines()
        assert all(len(line) <= 80 for line in lines)
        header = [line for line in lines if "-s0-" not in line]
        words = {word for key in done.planned.json()["runs"][0] for word in key.split()}
        assert {word for line in header for word in line.split()} == words


def printed(rows: list[console.Row]) -> list[str]:
    """Lines of a table on a terminal of 80 columns."""
    terminal = Console(width=80, highlight=False, soft_wrap=True)
    with terminal.capture() as capture:
        terminal.print(console.plain_table(rows))
    return capture.get().splitlines()


def test_what_all_rows_of_a_task_have_stands_in_the_first() -> None:
    rows: list[console.Row] = [
        {"Task": task, "Scheme": scheme, "Metric": "F1"} for task in "ab" for scheme in ("dense", "top-2")
    ]
    shown = console.without_repeats(rows)
    heads = [(row["Task"], row["Metric"]) for row in shown]
    assert heads == [("a", "F1"), (None, None), ("b", "F1"), (None, None)]
    assert [list(row) for row in shown] == [list(row) for row in rows]
    assert console.without_repeats([{"Gate": "x"}, {"Gate": "x"}]) == [{"Gate": "x"}, {"Gate": "x"}]


def test_the_widest_rows_of_table_3_fit_into_80_columns() -> None:
    row: console.Row = {
        "Task": "Question and Answer",
        "Scheme": "adaptive",
        "Time": 0.1234567,
        "paper": 0.86,
        "FLOPs": 0.7654321,
        "paper ": 2.36 / 3.27,
        "Metric": "Perplexity per token",
        "Value": 12.345678,
        "paper  ": 77.4,
    }
    longest: console.Row = {**row, "Task": "Summarization", "Time": "> 1.33 (4 of 5 reached)"}
    lines = printed([row, longest])
    assert all(len(line) <= 80 for line in lines)
    words = {word for line in lines for word in line.split()}
    assert {"Question", "and", "Answer", "adaptive", "Perplexity", "token"} <= words
    assert {"0.1235", "0.86", "0.7654", "0.7217", "12.35", "77.4"} <= words


class TestFailure:
    def test_the_others_are_done(
        self, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One run fails; the same command then makes only that one."""
        command = arguments(tmp_path, "sst2", SMALL)

        def failing(config: RunConfig, paths: RunPaths, **options: Any) -> RunResult:
            if config.gate == "top-1":
                raise FloatingPointError("the loss is nan at step 2; lower training.learning_rate")
            return execute(config, paths, **options)

        do_in_process(monkeypatch, failing)
        answer = cli(*command)
        assert answer.status == 1
        assert "Traceback" not in answer.err
        (run_id,) = study(tmp_path)["failed"]
        reason = "FloatingPointError: the loss is nan at step 2; lower training.learning_rate"
        assert run_id.startswith("sst2-top-1-s0-")
        assert study(tmp_path)["failed"] == {run_id: reason}
        assert answer.err.splitlines()[-1] == f"repro: {run_id} failed: {reason}"
        assert {one["gate"] for one in results(tmp_path).values()} == {"dense", "top-2", "adaptive"}
        (row,) = [row for row in table(tmp_path, "table3_detail") if row["Scheme"] == "top-1"]
        assert row["Inference Performance"] == ""
        assert row["Reason for empty cells"] == f"{run_id}: {reason}"
        assert f"* Sentiment analysis, top-1: {run_id}: {reason}" in answer.out.splitlines()

        monkeypatch.undo()
        answer = cli(*command)
        assert answer.status == 0, answer.err
        assert "4 runs, 3 of them finished before\n" in answer.err
        assert len(results(tmp_path)) == 4
        assert study(tmp_path)["failed"] == {}
        assert all(row["Inference Performance"] for row in table(tmp_path))

    def test_all_of_them(self, cli: CommandLine, tmp_path: Path) -> None:
        """A learning rate that no scheme survives: each says so, and no table is written."""
        answer = cli(*arguments(tmp_path, "sst2", SMALL | {"training.learning_rate": 1e30}))
        assert (answer.status, answer.out) == (1, "")
        failed = study(tmp_path)["failed"]
        assert len(failed) == 4
        assert all(reason.startswith("FloatingPointError: the loss is ") for reason in failed.values())
        last = answer.err.splitlines()[-4:]
        assert last == [f"repro: {run_id} failed: {reason}" for run_id, reason in failed.items()]
        assert results(tmp_path) == {}
        assert not (tmp_path / "mini" / "table3.csv").exists()

    def test_a_metric_that_overflowed(
        self, cli: CommandLine, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The perplexity of a model that learned nothing may be too large for a number: it is None."""
        made = {one["gate"]: one for one in results(done.out).values() if one["task"] == "wikitext"}

        def overflown(config: RunConfig, paths: RunPaths, **options: object) -> RunResult:
            result = made[config.gate] | {"metric": made[config.gate]["metric"] | {"value": None}}
            folder = paths.results / "mini" / "runs" / config.run_id
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(config.to_dict()))
            (folder / "result.json").write_text(json.dumps(result))
            return read_result(folder / "result.json")

        do_in_process(monkeypatch, overflown)
        answer = cli(*arguments(tmp_path, "wikitext", TWO_TASKS))
        assert answer.status == 0, answer.err
        assert "Traceback" not in answer.err
        assert [row["Inference Performance"] for row in table(tmp_path)] == [""] * 4
        assert all(row["Final loss"] for row in table(tmp_path, "table3_detail"))
        assert cli("list", "runs", "--out", tmp_path).status == 0


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


LONG: dict[str, object] = {"training.steps": 30, "evaluation.points": 1, "experts.count": 2}


class TestInterrupted:
    @pytest.fixture
    def started(self, cli: CommandLine, tmp_path: Path) -> Iterator[Started]:
        """A longer study, in a process of its own that a test may stop."""
        process = cli.start(*arguments(tmp_path, "sst2", SMALL | LONG, "--turns", 0))
        yield process
        process.kill()
        process.communicate()

    def test_goes_on_where_it_was(self, cli: CommandLine, tmp_path: Path, started: Started) -> None:
        deadline = time.monotonic() + 120
        while not any(lines(path) > 1 for path in tmp_path.glob("mini/runs/sst2-top-2-*/steps.jsonl")):
            assert started.poll() is None, started.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=60)
        assert (started.returncode, out) == (130, "")
        assert "Traceback" not in err
        (folder,) = tmp_path.glob("mini/runs/sst2-top-2-*")
        steps = (folder / "steps.jsonl").read_text().splitlines()
        assert 0 < len(steps) < 30
        message = f"repro: stopped after step {len(steps)} of 39; the same command continues"
        assert err.splitlines()[-1] == message
        assert [one["gate"] for one in results(tmp_path).values()] == ["dense"]
        dense = snapshot(next(tmp_path.glob("mini/runs/sst2-dense-*")))

        answer = cli(*arguments(tmp_path, "sst2", SMALL | LONG, "--turns", 0))
        assert answer.status == 0, answer.err
        assert "4 runs, 1 of them finished before\n[1/3] sst2 top-2 seed 0\n" in answer.err
        assert len(results(tmp_path)) == 4
        # It is not trained again; its trunk may have gone on to the target.
        then = snapshot(next(tmp_path.glob("mini/runs/sst2-dense-*")))
        assert {name: file for name, file in then.items() if name.startswith(("model", "cooldown"))} == {
            name: file for name, file in dense.items() if name.startswith(("model", "cooldown"))
        }
        assert then["steps.jsonl"][1].startswith(dense["steps.jsonl"][1])
        after = (folder / "steps.jsonl").read_text().splitlines()
        assert after[: len(steps)] == steps
        # 30, and 3 as the margin of the trunk.
        assert [json.loads(line)["step"] for line in after][:33] == list(range(1, 34))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_to_all_processes(self, cli: CommandLine, tmp_path: Path, number: int) -> None:
        """As a terminal, `timeout` or a job scheduler sends it: runs that take turns save what they did."""
        command = [*arguments(tmp_path, "sst2", SMALL | LONG), "--turns", 2, "--variants", "dense,top-1"]
        process = cli.start(*command)
        try:
            deadline = time.monotonic() + 120
            while not any(lines(path) > 3 for path in tmp_path.glob("mini/runs/*/steps.jsonl")):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.002)
            os.killpg(process.pid, number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err
        assert err.splitlines()[-1].endswith("; the same command continues")
        assert len(list(tmp_path.glob("mini/runs/*/checkpoint/step-*/manifest.json"))) == 2


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "messages"),
        [
            (["scheme"], ["unknown study 'scheme'. Did you mean 'schemes'?"]),
            (["schemes", "--tasks", "sst2,sst3"], ["--tasks: unknown task 'sst3'. Did you mean 'sst2'?"]),
            (["schemes", "--scale", "minni"], ["--scale: unknown scale 'minni'. Did you mean 'mini'?"]),
            (["schemes", "--set", "training.steps"], ["--set training.steps: expected KEY=VALUE"]),
            (
                ["schemes", "--set", "training.stepps=3", "--set", "training.steps=many"],
                [
                    "--set training.stepps: unknown key 'training.stepps'. Did you mean 'training.steps'?",
                    "--set training.steps: training.steps: expected a whole number or none, got 'many'",
                ],
            ),
            (
                ["schemes", "--set", "training.steps=3", "--set", "training.steps=4"],
                ["--set training.steps=4: training.steps is given twice"],
            ),
            (["schemes", "--data", "nowhere"], ["--data nowhere: no such folder."]),
            (["schemes", "--seeds", "0"], ["Invalid value for '--seeds'"]),
            (
                ["schemes", "--seeds", "1000000", "--dry-run"],
                ["Invalid value for '--seeds': Input should be less than or equal to 100"],
            ),
            ([], ["Missing argument 'STUDY...'"]),
        ],
    )
    def test_one_line_each(
        self, cli: CommandLine, tmp_path: Path, options: list[str], messages: list[str]
    ) -> None:
        out = tmp_path / "results"
        answer = cli("ablate", *options, "--out", out)
        assert (answer.status, answer.out) == (2, "")
        lines = answer.err.splitlines()
        assert len(lines) == len(messages)
        for line, message in zip(lines, messages, strict=True):
            assert line.startswith(f"repro: {message}")
        assert not out.exists()

    def test_unwritable(self, cli: CommandLine, tmp_path: Path) -> None:
        (tmp_path / "results").write_text("a file where the folder should be")
        answer = cli(*arguments(tmp_path / "results", "sst2", SMALL))
        assert (answer.status, answer.out) == (2, "")
        last = answer.err.splitlines()[-1]
        assert last.startswith(
            f"repro: {tmp_path / 'results' / 'mini' / 'studies' / 'schemes.json'}: cannot be"
        )

    def test_studies_are_listed(self, cli: CommandLine) -> None:
        studies = cli("list", "studies", "--json").json()["studies"]
        names = ["adamoe", "curriculum", "gates", "learning_rate", "schemes", "threshold", "weights"]
        assert [row["name"] for row in studies] == names
        assert studies[4]["what"].startswith("Dense, top-2, top-1 and adaptive gating")
