"""What the command line says of itself, and what `repro list` shows."""

import re
import resource
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import CommandLine, Json, TrainedRuns
from rich.console import Console

from repro import __version__
from repro.cli.console import Row, plain_table
from repro.cli.main import app

OPTIONS = {
    "train": (
        "--task --gate --threshold --scale --data --seed --steps --epochs --curriculum --precision"
        " --experts-backend --until-loss --model --set --out --fresh --tensorboard --json"
    ),
    "eval": ("run --split --gate-at-inference --gate --threshold --task --scale --set --data --out --json"),
    "ablate": (
        "studies --tasks --seeds --scale --data --model --values --variants --set --turns --no-train --lanes"
        " --threads --at-once --launcher --jobs --partition --gpus --memory --time --dry-run --processes"
        " --out --json"
    ),
    "analyze": "runs --scale --data --samples --out --json",
    "bench": (
        "--sizes --tokens --precision --experts --repeats --only --parallel --gpu --task --gate --steps"
        " --data --scale --out --json"
    ),
    "list": "what --scale --task --gate --state --gpus --memory --out --json",
    "report": "--scale --publish --mixed --check --out",
}


class TestHelp:
    def test_commands_and_options(self) -> None:
        group: Any = typer.main.get_command(app)
        assert {
            name: " ".join(option for parameter in command.params for option in parameter.opts)
            for name, command in group.commands.items()
        } == OPTIONS
        shell = ["--install-completion", "--show-completion"]
        assert [option for parameter in group.params for option in parameter.opts] == ["--version", *shell]

    @pytest.mark.parametrize("command", sorted(OPTIONS))
    def test_help_explains_every_option(self, cli: CommandLine, command: str) -> None:
        answer = cli(command, "--help")
        assert (answer.status, answer.err) == (0, "")
        for option in OPTIONS[command].split():
            assert option.upper() in answer.out.upper()
        assert all(len(line) <= 80 for line in answer.out.splitlines())

    def test_help_of_the_program(self, cli: CommandLine) -> None:
        answer = cli("--help")
        assert (answer.status, answer.err) == (0, "")
        for command in OPTIONS:
            assert f" {command} " in answer.out
        assert "..." not in answer.out.partition("Commands:")[2]
        assert all(len(line) <= 80 for line in answer.out.splitlines())

    @pytest.mark.parametrize("command", ["", *sorted(OPTIONS)])
    def test_the_short_option_is_the_same(self, cli: CommandLine, command: str) -> None:
        arguments = command.split()
        assert cli(*arguments, "-h") == cli(*arguments, "--help")

    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["list", "tasks"]])
    def test_answers_at_once(self, cli: CommandLine, tmp_path: Path, arguments: list[str]) -> None:
        """Measured 0.2 s of processor time; the limit leaves none for importing torch."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = cli.start_fresh(*arguments)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_version(cli: CommandLine) -> None:
    """Of this package, with the commit where there is one, and of what it computes with."""
    answer = cli("--version")
    assert (answer.status, answer.err) == (0, "")
    versions = {name: re.escape(version(name)) for name in ("torch", "transformers")}
    pattern = (
        rf"repro {re.escape(__version__)}( \([0-9a-f]{{8}}\+?\))?,"
        rf" torch {versions['torch']}, transformers {versions['transformers']}\n"
    )
    assert re.fullmatch(pattern, answer.out)


class TestList:
    @pytest.mark.parametrize(
        ("what", "members"),
        [
            ("tasks", {"sst2", "squad", "wmt19", "cnn_dailymail", "wikitext", "soda"}),
            ("gates", {"adaptive", "dense", "top-k (top-1, top-2, ...)"}),
            ("backends", {"grouped", "loop", "padded"}),
        ],
    )
    def test_families(self, cli: CommandLine, what: str, members: set[str]) -> None:
        printed = cli("list", what, "--json").json()
        assert set(printed) == {what}
        assert members <= {row["name"] for row in printed[what]}
        shown = cli("list", what)
        assert (shown.status, shown.err) == (0, "")
        assert all(name.split(" ")[0] in shown.out for name in members)
        assert all(len(line) <= 80 for line in shown.out.splitlines())

    def test_a_task_says_what_it_needs(self, cli: CommandLine) -> None:
        rows = {row["name"]: row for row in cli("list", "tasks", "--json").json()["tasks"]}
        assert rows["sst2"] == {
            "name": "sst2",
            "task": "Sentiment analysis",
            "model": "bert",
            "metric": "accuracy",
            "data set": "stanfordnlp/sst2",
            "folder": "sst2",
        }
        assert rows["wikitext"] == {
            "name": "wikitext",
            "task": "Text completion",
            "model": "gpt2",
            "metric": "perplexity",
            "data set": "Salesforce/wikitext",
            "folder": "wikitext or wikitext103 or wikitext2",
        }

    def test_alone_it_names_the_lists(self, cli: CommandLine, tmp_path: Path) -> None:
        """Each of them exists, and the help of the command names the same."""
        lists = cli("list", "--json").json()["lists"]
        names = [row["list"] for row in lists]
        assert names == ["tasks", "gates", "backends", "studies", "runs"]
        assert ", ".join(names) in cli("list", "--help").out
        shown = cli("list", "--out", tmp_path)
        assert (shown.status, shown.err) == (0, "")
        assert all(len(line) <= 80 for line in shown.out.splitlines())
        for row in lists:
            assert set(row["what"].split()) <= set(shown.out.split())
            assert set(cli("list", row["list"], "--out", tmp_path, "--json").json()) == {row["list"]}


@pytest.fixture(scope="module")
def results(trained: TrainedRuns, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two tasks and two gates; the dense run on SST-2 is not finished. Read only."""
    results = tmp_path_factory.mktemp("results")
    for gate, task in (("adaptive", "sst2"), ("dense", "sst2"), ("adaptive", "wikitext")):
        shutil.copytree(trained(gate, task).results, results, dirs_exist_ok=True)
    (results / "mini" / "runs" / trained("dense").folder.name / "result.json").unlink()
    return results


class TestRuns:
    def runs(self, cli: CommandLine, results: Path, *filters: str) -> list[Json]:
        rows = cli("list", "runs", "--out", results, *filters, "--json").json()["runs"]
        assert isinstance(rows, list)
        return rows

    def test_all(self, cli: CommandLine, trained: TrainedRuns, results: Path) -> None:
        adaptive, dense, text = trained("adaptive"), trained("dense"), trained("adaptive", "wikitext")
        rows = self.runs(cli, results)
        assert {row["run"]: (row["scale"], row["state"]) for row in rows} == {
            adaptive.folder.name: ("mini", "finished"),
            dense.folder.name: ("mini", "not finished"),
            text.folder.name: ("mini", "finished"),
        }
        metrics = {row["run"]: row["metric"] for row in rows}
        assert metrics[adaptive.folder.name] == f"accuracy {adaptive.result['metric']['value']:.4g}"
        assert metrics[dense.folder.name] == ""
        shown = cli("list", "runs", "--out", results)
        assert (shown.status, shown.err) == (0, "")
        assert all(run in shown.out for run in metrics)
        assert all(len(line) <= 80 for line in shown.out.splitlines())

    @pytest.mark.parametrize(
        ("filters", "chosen"),
        [
            (["--task", "sst2"], ["sst2-adaptive", "sst2-dense"]),
            (["--gate", "adaptive"], ["sst2-adaptive", "wikitext-adaptive"]),
            (["--gate", "dense"], ["sst2-dense"]),
            (["--state", "finished"], ["sst2-adaptive", "wikitext-adaptive"]),
            (["--state", "not finished"], ["sst2-dense"]),
            (["--task", "wikitext", "--gate", "adaptive", "--state", "finished"], ["wikitext-adaptive"]),
            (["--task", "wikitext", "--gate", "dense"], []),
            (["--gate", "top-2"], []),
        ],
    )
    def test_filters(self, cli: CommandLine, results: Path, filters: list[str], chosen: list[str]) -> None:
        rows = self.runs(cli, results, *filters)
        assert [row["run"].partition("-s0-")[0] for row in rows] == chosen
        shown = cli("list", "runs", "--out", results, *filters).out
        if chosen:
            assert shown.count("-s0-") == len(chosen)
        else:
            assert shown == f"no runs in {results}\n"

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["runs", "--task", "sst3"], "--task: unknown task 'sst3'. Did you mean 'sst2'?"),
            (["runs", "--gate", "adaptiv"], "--gate: unknown gate 'adaptiv'. Did you mean 'adaptive'?"),
            (["runs", "--state", "finish"], "--state: unknown state 'finish'. Did you mean 'finished'?"),
            (["gates", "--task", "sst2"], "--task: has no effect on 'gates'; use it with runs"),
            (["tasks", "--gate", "dense"], "--gate: has no effect on 'tasks'; use it with runs"),
            (["studies", "--state", "finished"], "--state: has no effect on 'studies'; use it with runs"),
        ],
    )
    def test_a_wrong_filter(
        self, cli: CommandLine, results: Path, arguments: list[str], problem: str
    ) -> None:
        answer = cli("list", *arguments, "--out", results)
        assert (answer.status, answer.out) == (2, "")
        (line,) = answer.err.splitlines()
        assert line.startswith(f"repro: {problem}")

    def test_no_runs(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli("list", "runs", "--out", tmp_path / "none")
        assert answer.status == 0
        assert answer.out.startswith("no runs in ")
        assert cli("list", "runs", "--out", tmp_path / "none", "--json").json() == {"runs": []}
        assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_costs_no_number() -> None:
    name = "cnn_dailymail-attention-budget-s2-d943fe62"
    numbers = {"steps": 442, "tokens": 487_123, "params": 4_480_000, "FLOPs": 6.6e11, "about s": 39}
    row: Row = {"run": name, "state": "to do", **numbers, "about GB": 0.61, "GB a process": 0.25}
    console = Console(width=80, highlight=False, soft_wrap=True)
    with console.capture() as capture:
        console.print(plain_table([row]))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert [line.split() for line in lines[1:]] == [
        ["run", "state", "steps", "tokens", "params", "FLOPs", "s", "GB", "process"],
        [name[:28], "to", "do", "442", "487k", "4.48M", "660G", "39", "0.61", "0.25"],
        [name[28:]],
    ]
