"""The command line from end to end on small runs: options, rows, files, results, lists."""

import json
import math
import resource
import shutil
import statistics
from pathlib import Path
from typing import Any

import pandas
import pytest
import typer.main

from repro import cli

GATES = ("dense", "top-1", "top-2", "adaptive")
MOE = GATES[1:]


def only_run(results: Path) -> Path:
    (folder,) = results.glob("*/runs/*")
    return folder


def read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def losses(results: Path) -> list[float]:
    return [row["loss"] for row in rows(only_run(results) / "steps.jsonl")]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


OPTIONS = {
    "train": (
        "--task --gate --threshold --scale --data --seed --steps --epochs --curriculum --precision"
        " --experts-backend --model --set --out --fresh --tensorboard --json"
    ),
    "eval": "run --split --gate-at-inference --data --out --json",
    "ablate": (
        "studies --tasks --seeds --scale --data --model --values --variants --set --turns --at-once "
        "--dry-run --out --json"
    ),
    "analyze": "runs --scale --data --samples --out --json",
    "bench": (
        "--sizes --tokens --precision --experts --repeats --only --task --gate --steps --data --scale"
        " --out --json"
    ),
    "list": "what --scale --out --json",
    "report": "--scale --check --out",
}


class TestHelp:
    def test_commands_and_options(self) -> None:
        group: Any = typer.main.get_command(cli.app)
        found = {
            name: " ".join(option for parameter in command.params for option in parameter.opts)
            for name, command in group.commands.items()
        }
        assert found == OPTIONS

    @pytest.mark.parametrize("command", sorted(OPTIONS))
    def test_help_explains_every_option(self, repro: Any, command: str) -> None:
        answer = repro(command, "--help")
        assert (answer.status, answer.err) == (0, "")
        for option in OPTIONS[command].split():
            assert option.upper() in answer.out.upper()
        assert all(len(line) <= 80 for line in answer.out.splitlines())

    def test_help_of_the_program(self, repro: Any) -> None:
        answer = repro("--help")
        assert (answer.status, answer.err) == (0, "")
        for command in OPTIONS:
            assert f" {command} " in answer.out
        assert "..." not in answer.out.partition("Commands:")[2]
        assert all(len(line) <= 80 for line in answer.out.splitlines())

    @pytest.mark.parametrize("arguments", [["--help"], ["list", "tasks"]])
    def test_answers_at_once(self, repro: Any, tmp_path: Path, arguments: list[str]) -> None:
        """Measured 0.2 s of processor time; the limit leaves none for importing torch."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = repro.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


class TestList:
    @pytest.mark.parametrize(
        ("what", "known"),
        [
            ("tasks", {"sst2", "squad", "wmt19", "cnn_dailymail", "wikitext", "soda"}),
            ("gates", {"adaptive", "dense", "top-k (top-1, top-2, ...)"}),
            ("backends", {"grouped", "loop", "padded"}),
        ],
    )
    def test_families(self, repro: Any, what: str, known: set[str]) -> None:
        found = repro("list", what, "--json").json()
        assert set(found) == {what}
        assert known <= {row["name"] for row in found[what]}
        shown = repro("list", what)
        assert (shown.status, shown.err) == (0, "")
        assert all(name.split(" ")[0] in shown.out for name in known)
        assert all(len(line) <= 80 for line in shown.out.splitlines())

    def test_a_task_says_what_it_needs(self, repro: Any) -> None:
        rows = {row["name"]: row for row in repro("list", "tasks", "--json").json()["tasks"]}
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

    def test_runs(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        shutil.copytree(trained("adaptive").results, tmp_path, dirs_exist_ok=True)
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        (tmp_path / "mini" / "runs" / trained("dense").folder.name / "result.json").unlink()
        found = repro("list", "runs", "--out", tmp_path, "--json").json()["runs"]
        states = {row["run"]: (row["scale"], row["state"]) for row in found}
        assert states == {
            trained("adaptive").folder.name: ("mini", "finished"),
            trained("dense").folder.name: ("mini", "not finished"),
        }
        shown = repro("list", "runs", "--out", tmp_path)
        assert trained("adaptive").folder.name in shown.out
        assert all(len(line) <= 80 for line in shown.out.splitlines())

    def test_no_runs(self, repro: Any, tmp_path: Path) -> None:
        answer = repro("list", "runs", "--out", tmp_path / "none")
        assert answer.status == 0
        assert answer.out.startswith("no runs in ")
        assert repro("list", "runs", "--out", tmp_path / "none", "--json").json() == {"runs": []}
        assert list(tmp_path.iterdir()) == []


class TestTrain:
    @pytest.mark.parametrize("gate", GATES)
    def test_prints_a_row(self, trained: Any, gate: str) -> None:
        run = trained(gate)
        assert "Traceback" not in run.answer.err
        lines = run.answer.out.splitlines()
        for title in ("Task", "Scheme", "Train s", "ms/step", "FLOPs/token", "Two", "accuracy", "top-1"):
            assert title in lines[0]
        assert gate in lines[1]
        assert f"{run.result['metric']['value']:.4g}" in lines[1]
        assert run.folder.name in lines
        assert "…" not in run.answer.out
        assert all(len(line) <= 80 for line in lines)

    @pytest.mark.parametrize("gate", GATES)
    def test_writes_all_files(self, trained: Any, gate: str) -> None:
        names = {path.name for path in trained(gate).folder.iterdir() if not path.name.startswith(".")}
        expected = {"config.json", "environment.json", "places.json", "steps.jsonl", "evals.jsonl"}
        expected |= {"result.json", "model"}
        assert names == (expected if gate == "dense" else expected | {"routing.jsonl"})
        model = {path.name for path in (trained(gate).folder / "model").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= model

    @pytest.mark.parametrize("gate", GATES)
    def test_records(self, trained: Any, gate: str) -> None:
        run = trained(gate)
        steps = rows(run.folder / "steps.jsonl")
        assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
        assert [row["epoch"] for row in steps] == [0, 0, 0, 0, 1, 1]
        assert all(math.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in steps)
        assert all(0 < row["tokens"] <= row["padded_tokens"] for row in steps)
        assert steps[0]["learning_rate"] == pytest.approx(1e-3)
        assert steps[-1]["learning_rate"] == pytest.approx(1e-3 / 5)
        assert sum(row["tokens"] for row in steps) == run.result["tokens"]
        assert sum(row["seconds"] for row in steps) == pytest.approx(run.result["train_seconds"])
        curve = [
            [row["step"], row["train_seconds"], row["eval_loss"]] for row in rows(run.folder / "evals.jsonl")
        ]
        assert curve == run.result["curve"]
        if gate != "dense":
            routing = rows(run.folder / "routing.jsonl")
            assert [row["step"] for row in routing] == [1, 2, 3, 4, 5, 6]
            assert all(len(row["share_by_count_per_layer"]) == 2 for row in routing)

    @pytest.mark.parametrize("gate", GATES)
    def test_config_and_environment(self, trained: Any, gate: str) -> None:
        run = trained(gate)
        assert read(run.folder / "config.json") == run.result["config"]
        assert read(run.folder / "environment.json") == run.result["environment"]
        environment = run.result["environment"]
        assert environment["packages"]["torch"]
        assert (environment["threads"], environment["processes"]) == (1, 1)
        assert environment["experts_backend"] == (None if gate == "dense" else "grouped")
        options = run.result["config"]["gate_options"]
        assert options.get("threshold") == (0.1 if gate == "adaptive" else None)
        assert options.get("k") == {"top-1": 1, "top-2": 2}.get(gate)

    def test_json_is_the_result_and_nothing_else(self, repro: Any, tmp_path: Path) -> None:
        answer = repro.train("adaptive", tmp_path, "--json")
        assert answer.json() == read(only_run(tmp_path) / "result.json")
        assert answer.out.count("\n") == 1

    def test_threshold_option(self, repro: Any, tmp_path: Path) -> None:
        results = {
            threshold: repro.train("adaptive", tmp_path, "--threshold", threshold, "--json").json()
            for threshold in ("0", "0.3", "1")
        }
        shares = [result["routing"]["share_by_count"] for result in results.values()]
        assert sum(shares[0][2:]) < 0.01
        assert sum(shares[0][2:]) < shares[1][2] < shares[2][2] == 1
        assert len(list(tmp_path.glob("mini/runs/*"))) == 3

    def test_steps_and_epochs(self, repro: Any, tmp_path: Path) -> None:
        """64 samples in batches of 16: 1.5 epochs are 6 steps."""
        drop = {"training.steps": None}
        by_epochs = repro.train("top-1", tmp_path / "a", "--epochs", 1.5, "--json", **drop).json()
        by_steps = repro.train("top-1", tmp_path / "b", "--steps", 6, "--json", **drop).json()
        assert (
            (by_epochs["steps"], by_epochs["epochs"]) == (by_steps["steps"], by_steps["epochs"]) == (6, 1.5)
        )
        assert losses(tmp_path / "a") == losses(tmp_path / "b")

    def test_a_loss_that_is_not_finite_fails(self, repro: Any, tmp_path: Path) -> None:
        answer = repro.train("dense", tmp_path, **{"training.learning_rate": 1e30})
        assert answer.status == 1
        (line,) = [line for line in answer.err.splitlines() if line.startswith("repro: ")]
        assert "the loss is" in line
        assert "learning_rate" in line
        assert "Traceback" not in answer.err
        assert answer.out == ""
        assert not (only_run(tmp_path) / "result.json").exists()


RESULT_KEYS = {
    *("schema_version", "run_id", "task", "gate", "scale", "seed", "config", "status"),
    *("steps", "epochs", "tokens", "train_seconds", "seconds_per_step", "tokens_per_second"),
    *("beside", "stolen_share"),
    *("metric", "metric_top1", "eval_loss", "curve", "flops", "routing", "parameters"),
    *("peak_memory_bytes", "data", "environment"),
}
"""Those of docs/results.md."""


@pytest.mark.parametrize("task", ["squad", "wmt19", "cnn_dailymail", "wikitext", "soda"])
def test_prints_a_row_of_every_task(trained: Any, task: str) -> None:
    run = trained("adaptive", task)
    header, row, *rest = run.answer.out.splitlines()
    assert run.result["metric"]["name"] in header
    assert f"{run.result['metric']['value']:.4g}" in row
    assert run.folder.name in rest
    assert "…" not in run.answer.out
    assert all(len(line) <= 80 for line in run.answer.out.splitlines())


class TestResult:
    @pytest.mark.parametrize("gate", GATES)
    def test_keys(self, trained: Any, gate: str) -> None:
        result = trained(gate).result
        assert set(result) >= RESULT_KEYS
        assert result["run_id"] == trained(gate).folder.name
        assert (result["task"], result["gate"], result["scale"], result["seed"]) == ("sst2", gate, "mini", 0)
        assert (result["status"], result["steps"], result["epochs"]) == ("finished", 6, 1.5)
        assert set(result["metric"]) == {"name", "value", "higher_is_better", "count"}
        assert set(result["flops"]) == {
            "per_token",
            "per_token_executed",
            "macs_per_token",
            "dense_per_token",
        }
        assert set(result["parameters"]) == {"total", "active"}
        assert set(result["data"]) == {"source", "fingerprint", "counts", "features", "cut"}

    @pytest.mark.parametrize("gate", GATES)
    def test_numbers(self, trained: Any, gate: str) -> None:
        result = trained(gate).result
        assert result["train_seconds"] > 0
        assert result["tokens_per_second"] == pytest.approx(result["tokens"] / result["train_seconds"])
        seconds = [row["seconds"] for row in rows(trained(gate).folder / "steps.jsonl")]
        assert result["seconds_per_step"] == pytest.approx(statistics.median(seconds))
        assert result["peak_memory_bytes"] > 10_000_000
        metric = result["metric"]
        assert (metric["name"], metric["higher_is_better"], metric["count"]) == ("accuracy", True, 32)
        assert metric["value"] * 32 == pytest.approx(round(metric["value"] * 32))
        assert 0 < result["eval_loss"] < 2
        assert result["data"]["source"] == "synthetic"
        assert result["data"]["counts"] == {"train": 64, "validation": 32}

    @pytest.mark.parametrize("gate", GATES)
    def test_curve(self, trained: Any, gate: str) -> None:
        result = trained(gate).result
        assert [row[0] for row in result["curve"]] == [0, 3, 6]
        seconds = [row[1] for row in result["curve"]]
        assert seconds[0] == 0
        assert seconds == sorted(seconds)
        assert seconds[-1] == result["train_seconds"]
        # All 32 validation samples are in the subset of the curve.
        assert result["curve"][-1][2] == pytest.approx(result["eval_loss"], rel=1e-6)

    @pytest.mark.parametrize("gate", MOE)
    def test_routing_shares(self, trained: Any, gate: str) -> None:
        routing = trained(gate).result["routing"]
        assert sum(routing["share_by_count"]) == pytest.approx(1)
        layers = routing["share_by_count_per_layer"]
        assert len(layers) == 2
        for shares in layers:
            assert sum(shares) == pytest.approx(1)
            assert all(0 <= share <= 1 for share in shares)
        mean = sum(count * share for count, share in enumerate(routing["share_by_count"]))
        assert routing["mean_experts"] == pytest.approx(mean)
        assert all(variation >= 0 for variation in routing["load_cv_per_layer"])
        assert all(0.3 < spread < 3 for spread in routing["logit_std_per_layer"])

    def test_routing_of_each_gate(self, trained: Any) -> None:
        assert trained("top-1").result["routing"]["share_by_count"] == [0, 1]
        assert trained("top-2").result["routing"]["share_by_count"] == [0, 0, 1]
        none, one, two = trained("adaptive").result["routing"]["share_by_count"]
        assert none == 0
        assert 0 < two < one < 1
        assert trained("dense").result["routing"] is None

    def test_metric_under_top_1_inference(self, trained: Any) -> None:
        assert trained("dense").result["metric_top1"] is None
        # With one expert in training the two gates at inference are the same.
        assert trained("top-1").result["metric_top1"] == trained("top-1").result["metric"]
        for gate in ("top-2", "adaptive"):
            assert set(trained(gate).result["metric_top1"]) == set(trained(gate).result["metric"])

    def test_flops(self, trained: Any) -> None:
        flops = {gate: trained(gate).result["flops"] for gate in GATES}
        assert flops["dense"]["per_token"] == flops["dense"]["dense_per_token"]
        for gate in GATES:
            assert flops[gate]["per_token_executed"] >= flops[gate]["per_token"]
            assert flops[gate]["macs_per_token"] * 2 == flops[gate]["per_token"]
        assert flops["dense"]["per_token"] < flops["top-1"]["per_token"]
        assert flops["top-1"]["per_token"] < flops["adaptive"]["per_token"] <= flops["top-2"]["per_token"]

    def test_flops_by_hand(self, trained: Any) -> None:
        """Width 32, hidden 64, two layers, four experts: one more expert costs 2 layers x 2 x 2 x 32 x 64."""
        top_1, top_2, dense = (trained(gate).result["flops"] for gate in ("top-1", "top-2", "dense"))
        router = 2 * 2 * 32 * 4
        assert top_1["per_token"] - top_1["dense_per_token"] == pytest.approx(router)
        assert top_2["per_token"] - top_2["dense_per_token"] == pytest.approx(router + 2 * 2 * 2 * 32 * 64)
        # The same samples in the same order.
        assert dense["dense_per_token"] == top_1["dense_per_token"] == top_2["dense_per_token"]

    def test_parameters_by_hand(self, trained: Any) -> None:
        parameters = {gate: trained(gate).result["parameters"] for gate in GATES}
        assert all(entry["active"] <= entry["total"] for entry in parameters.values())
        assert parameters["dense"]["active"] == parameters["dense"]["total"]
        expert = 2 * 32 * 64 + 32 + 64
        for gate in MOE:
            more = parameters[gate]["total"] - parameters["dense"]["total"]
            assert more == 2 * (3 * expert + 4 * 32)
        idle = parameters["top-1"]["total"] - parameters["top-1"]["active"]
        assert idle == 2 * 3 * expert
        assert parameters["top-2"]["total"] - parameters["top-2"]["active"] == 2 * 2 * expert

    def test_names_no_place_of_this_machine(self, repro: Any, tmp_path: Path, data_folder: Path) -> None:
        answer = repro.train("adaptive", tmp_path / "results", "--data", data_folder)
        assert answer.status == 0, answer.err
        folder = only_run(tmp_path / "results")
        for name in ("result.json", "config.json", "environment.json", "model/config.json"):
            text = (folder / name).read_text(encoding="utf-8")
            assert str(tmp_path) not in text
            assert str(Path.home()) + "/" not in text


class TestAgain:
    def test_a_finished_run_is_not_repeated(self, repro: Any, trained: Any) -> None:
        run = trained("adaptive")
        before = snapshot(run.results)
        again = repro.train("adaptive", run.results)
        assert again.status == 0
        assert again.out == run.answer.out
        assert f"{run.folder.name} was finished before" in again.err
        assert snapshot(run.results) == before

    def test_fresh_trains_again(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        run = trained("adaptive")
        shutil.copytree(run.results, tmp_path, dirs_exist_ok=True)
        (only_run(tmp_path) / "left-over").write_text("", encoding="utf-8")
        answer = repro.train("adaptive", tmp_path, "--fresh")
        assert answer.status == 0
        assert "finished before" not in answer.err
        result = read(only_run(tmp_path) / "result.json")
        assert result["train_seconds"] != run.result["train_seconds"]
        assert result["eval_loss"] == run.result["eval_loss"]
        assert len(rows(only_run(tmp_path) / "steps.jsonl")) == 6
        assert not (only_run(tmp_path) / "left-over").exists()

    def test_another_setting_is_another_run(self, repro: Any, tmp_path: Path) -> None:
        for seed in (0, 1):
            assert repro.train("top-1", tmp_path, "--seed", seed).status == 0
        names = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.glob("mini/runs/*"))
        assert names == ["sst2-top-1-s0", "sst2-top-1-s1"]

    def test_a_row_of_long_numbers_fits(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        """The row is printed from the result, so one with long numbers stands for a long run."""
        shutil.copytree(trained("adaptive").results, tmp_path, dirs_exist_ok=True)
        path = only_run(tmp_path) / "result.json"
        result = read(path) | {"train_seconds": 12345.6, "seconds_per_step": 1.2345}
        for metric in ("metric", "metric_top1"):
            result[metric]["value"] = 0.4688
        result["flops"]["per_token"] = 43_900
        path.write_text(json.dumps(result), encoding="utf-8")
        answer = repro.train("adaptive", tmp_path)
        header, row, *_ = answer.out.splitlines()
        for title in ("Task", "Scheme", "Train s", "ms/step", "FLOPs/token", "Two", "accuracy", "top-1"):
            assert title in header
        for value in ("adaptive", "12345.6", "1234", "43.9k", "0.4688"):
            assert value in row
        assert "…" not in answer.out
        assert all(len(line) <= 80 for line in answer.out.splitlines())


class TestOptions:
    @pytest.mark.parametrize("gate", ["top-2", "adaptive"])
    def test_back_ends_agree(self, repro: Any, tmp_path: Path, gate: str) -> None:
        executed = {}
        for backend in ("loop", "padded", "grouped"):
            out = tmp_path / backend
            result = repro.train(gate, out, "--experts-backend", backend, "--json").json()
            assert result["environment"]["experts_backend"] == backend
            executed[backend] = result["flops"]["per_token_executed"]
        for backend in ("padded", "grouped"):
            assert losses(tmp_path / backend) == pytest.approx(losses(tmp_path / "loop"), rel=1e-4)
        assert executed["loop"] == pytest.approx(executed["grouped"], rel=1e-3)
        assert executed["padded"] > executed["loop"]

    def test_upcycled_experts_start_as_the_dense_model(self, repro: Any, tmp_path: Path) -> None:
        """Copies of the dense FFN with weights that sum to 1 change nothing before the first step."""
        dense = repro.train("dense", tmp_path / "dense", "--json").json()
        curve = {}
        for init in ("upcycle", "random"):
            settings = {"experts.init": init, "gate.combine": "renormalised"}
            curve[init] = repro.train("top-2", tmp_path / init, "--json", **settings).json()["curve"]
        assert curve["upcycle"][0][2] == pytest.approx(dense["curve"][0][2], rel=1e-6)
        assert curve["random"][0][2] != pytest.approx(dense["curve"][0][2], rel=1e-4)

    @pytest.mark.parametrize("order", ["cosine", "count", "length", "random"])
    def test_curricula(self, repro: Any, tmp_path: Path, order: str) -> None:
        repro.train("adaptive", tmp_path, "--curriculum", order, "--json").json()
        steps = rows(only_run(tmp_path) / "steps.jsonl")
        tokens = [row["tokens"] for row in steps]
        assert read(only_run(tmp_path) / "config.json")["training"]["curriculum"] == order
        assert (tokens[:4] == sorted(tokens[:4])) is (order == "length")
        if order == "length":
            assert tokens[4:] == tokens[:2]
        if order == "count":
            # The second epoch starts with the samples that had the fewest two-expert tokens.
            assert tokens[4] < sum(tokens[:4]) / 4

    @pytest.mark.parametrize("gate", ["dense", "adaptive"])
    def test_accumulation_is_one_big_batch(self, repro: Any, tmp_path: Path, gate: str) -> None:
        """Without dropout, and without the balance loss, which is not a sum over samples."""
        settings = {
            "model.config.hidden_dropout_prob": 0.0,
            "model.config.attention_probs_dropout_prob": 0.0,
            "training.curriculum": "length",
        }
        if gate == "adaptive":
            settings["gate.balance"] = 0.0
        whole = repro.train(
            gate, tmp_path / "whole", "--json", **settings, **{"training.batch_size": 32}
        ).json()
        cut = {"training.batch_size": 8, "training.accumulation": 4}
        parts = repro.train(gate, tmp_path / "parts", "--json", **settings, **cut).json()
        assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
        norms = [
            [row["gradient_norm"] for row in rows(only_run(tmp_path / name) / "steps.jsonl")]
            for name in ("whole", "parts")
        ]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        assert parts["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-5)
        assert (parts["steps"], parts["epochs"], parts["tokens"]) == (6, 3, whole["tokens"])

    @pytest.mark.parametrize("gate", ["dense", "adaptive"])
    def test_bf16(self, repro: Any, trained: Any, tmp_path: Path, gate: str) -> None:
        result = repro.train(gate, tmp_path, "--precision", "bf16", "--json").json()
        assert result["environment"]["precision"] == "bf16"
        assert trained(gate).result["environment"]["precision"] == "fp32"
        exact = trained(gate).result
        assert result["eval_loss"] != exact["eval_loss"]
        assert result["eval_loss"] == pytest.approx(exact["eval_loss"], rel=0.02)

    def test_tensorboard(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        answer = repro.train("adaptive", tmp_path, "--tensorboard")
        assert answer.status == 0, answer.err
        (events,) = only_run(tmp_path).rglob("events.out.tfevents.*")
        assert b"gradient_norm" in events.read_bytes()
        assert read(only_run(tmp_path) / "result.json")["run_id"] == trained("adaptive").folder.name

    def test_every_second_layer(self, repro: Any, tmp_path: Path) -> None:
        result = repro.train("top-2", tmp_path, "--json", **{"experts.every": 2}).json()
        assert len(result["routing"]["share_by_count_per_layer"]) == 1

    def test_sparse_layers_cost_less(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        result = repro.train("top-2", tmp_path, "--json", **{"experts.every": 2}).json()
        every = trained("top-2").result["flops"]["per_token"]
        assert trained("dense").result["flops"]["per_token"] < result["flops"]["per_token"] < every


# A checkpoint brings its own sizes.
PRETRAINED = dict.fromkeys(
    [
        "model.vocab_size",
        "model.config.hidden_size",
        "model.config.intermediate_size",
        "model.config.initializer_range",
    ]
)


class TestPretrained:
    @pytest.mark.parametrize("gate", ["dense", "adaptive"])
    def test_starts_from_a_folder(self, repro: Any, tmp_path: Path, bert_folder: Path, gate: str) -> None:
        import safetensors.torch

        settings = PRETRAINED | {"training.learning_rate": 1e-6}
        if gate == "adaptive":
            settings["experts.init"] = "upcycle"
        result = repro.train(gate, tmp_path, "--model", bert_folder, "--json", **settings).json()
        assert result["config"]["model"]["checkpoint"].startswith("dir:tiny-bert:")
        assert str(bert_folder) not in json.dumps(result)
        before = safetensors.torch.load_file(bert_folder / "model.safetensors")
        after = safetensors.torch.load_file(only_run(tmp_path) / "model" / "model.safetensors")
        name = "embeddings.word_embeddings.weight"
        assert (before[name] - after[f"bert.{name}"]).abs().max() < 1e-4

    def test_options_of_the_model_can_be_changed(self, repro: Any, tmp_path: Path, bert_folder: Path) -> None:
        settings = PRETRAINED | {"model.config.hidden_dropout_prob": 0.3}
        assert repro.train("dense", tmp_path, "--model", bert_folder, **settings).status == 0
        assert read(only_run(tmp_path) / "model" / "config.json")["hidden_dropout_prob"] == 0.3

    def test_a_trained_run_is_a_model_folder(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        folder = trained("dense").folder / "model"
        assert repro.train("top-1", tmp_path, "--model", folder, **PRETRAINED).status == 0


class TestData:
    def write_all(self, data_folder: Path, suffix: str) -> None:
        for path in sorted((data_folder / "sst2").glob("*.jsonl")):
            target = path.with_name(path.stem + suffix)
            frame = pandas.read_json(path, lines=True)
            if suffix == ".csv":
                frame.to_csv(target, index=False)
            elif suffix == ".parquet":
                frame.to_parquet(target, index=False)
            else:
                frame.to_json(target, orient="records", lines=True)
            if target != path:
                path.unlink()

    def test_formats_of_a_folder_are_the_same(self, repro: Any, tmp_path: Path, data_folder: Path) -> None:
        found = {}
        for suffix in (".jsonl", ".jsonl.gz", ".csv", ".parquet"):
            folder = tmp_path / suffix[1:]
            shutil.copytree(data_folder, folder)
            self.write_all(folder, suffix)
            result = repro.train("adaptive", folder / "results", "--data", folder, "--json").json()
            assert result["data"]["source"] == "folder"
            assert result["data"]["counts"] == {"train": 64, "validation": 32}
            found[suffix] = (losses(folder / "results"), result["data"]["fingerprint"])
        assert len({tuple(steps) for steps, _ in found.values()}) == 1
        assert len({fingerprint for _, fingerprint in found.values()}) == 1

    def test_samples_are_limited(self, repro: Any, tmp_path: Path, data_folder: Path) -> None:
        limits = {"data.train_samples": 20, "data.validation_samples": 10}
        result = repro.train("dense", tmp_path, "--data", data_folder, "--json", **limits).json()
        assert result["data"]["counts"] == {"train": 20, "validation": 10}
        assert result["metric"]["count"] == 10

    @pytest.mark.parametrize("layout", ["data/{}-00000-of-00001.parquet", "{}.jsonl"])
    def test_hub(
        self,
        repro: Any,
        tmp_path: Path,
        data_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        layout: str,
    ) -> None:
        """A local folder in the hub's layout stands for the data set of that name."""
        place = tmp_path / "stanfordnlp" / "sst2"
        for split in ("train", "validation", "test"):
            target = place / layout.format(split)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = data_folder / "sst2" / f"{split}.jsonl"
            if target.suffix == ".parquet":
                pandas.read_json(source, lines=True).to_parquet(target, index=False)
            else:
                shutil.copy(source, target)
        monkeypatch.chdir(tmp_path)
        hub = repro.train("adaptive", tmp_path / "hub", "--data", "hub", "--json").json()
        folder = repro.train("adaptive", tmp_path / "folder", "--data", data_folder, "--json").json()
        assert hub["data"]["source"] == "hub"
        assert hub["data"]["counts"] == {"train": 64, "validation": 32}
        assert hub["data"]["fingerprint"] == folder["data"]["fingerprint"]
        assert losses(tmp_path / "hub") == losses(tmp_path / "folder")
        assert repro("eval", only_run(tmp_path / "hub"), "--split", "test").status == 0
