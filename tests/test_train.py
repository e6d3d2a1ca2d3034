"""`repro train` from end to end on small runs: what it prints and writes, its options and inputs."""

import json
import math
import shutil
import statistics
from pathlib import Path

import pandas
import pytest
from command_line import (
    CommandLine,
    TrainedRuns,
    only_run,
    read_legs,
    read_lines,
    read_object,
    read_path,
    snapshot,
    without_model,
)
from refusals import refused

from repro.config import ORDERS_BY_RATIOS

GATES = ("dense", "top-1", "top-2", "adaptive")


def losses(results: Path) -> list[float]:
    """Those of the trunk, then those of the cooldown."""
    trunk, cooldown = read_legs(only_run(results))
    return [row["loss"] for row in trunk + cooldown]


class TestTrain:
    @pytest.mark.parametrize("gate", GATES)
    def test_prints_a_row(self, trained: TrainedRuns, gate: str) -> None:
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
    def test_writes_all_files(self, trained: TrainedRuns, gate: str) -> None:
        names = {path.name for path in trained(gate).folder.iterdir() if not path.name.startswith(".")}
        expected = {"config.json", "environment.json", "places.json", "steps.jsonl", "evals.jsonl"}
        expected |= {"result.json", "model", "model.json", "checkpoint", "cooldown"}
        assert names == (expected if gate == "dense" else expected | {"routing.jsonl"})
        cooldown = {path.name for path in (trained(gate).folder / "cooldown").iterdir()}
        assert cooldown == names & {"steps.jsonl", "evals.jsonl", "routing.jsonl"}
        assert [path.name for path in (trained(gate).folder / "checkpoint").iterdir()] == ["step-7"]
        model = {path.name for path in (trained(gate).folder / "model").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= model

    @pytest.mark.parametrize("gate", GATES)
    def test_records(self, trained: TrainedRuns, gate: str) -> None:
        """Six steps: a trunk of seven, and a cooldown from the fourth to the sixth."""
        run = trained(gate)
        trunk, cooldown = read_legs(run.folder)
        path = read_path(run.folder)
        assert [row["step"] for row in trunk] == [1, 2, 3, 4, 5, 6, 7]
        assert [row["step"] for row in cooldown] == [5, 6]
        assert [row["epoch"] for row in trunk] == [0, 0, 0, 0, 1, 1, 1]
        assert [row["epoch"] for row in cooldown] == [1, 1]
        assert all(math.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in trunk + cooldown)
        assert all(0 < row["tokens"] <= row["padded_tokens"] for row in trunk + cooldown)
        assert [row["learning_rate"] for row in trunk] == pytest.approx([1e-3] * 7)
        assert [row["learning_rate"] for row in cooldown] == pytest.approx([1e-3, 1e-3 / 2])
        assert sum(row["tokens"] for row in path) == run.result["tokens"]
        assert sum(row["seconds"] for row in path) == pytest.approx(run.result["train_seconds"])
        curve = [
            [row["step"], row["train_seconds"], row["eval_loss"]]
            for row in read_lines(run.folder / "evals.jsonl")
        ]
        assert curve == run.result["curve"]
        if gate != "dense":
            legs = read_legs(run.folder, "routing.jsonl")
            assert [[row["step"] for row in leg] for leg in legs] == [[1, 2, 3, 4, 5, 6, 7], [5, 6]]
            assert all(len(row["share_by_count_per_layer"]) == 2 for leg in legs for row in leg)

    @pytest.mark.parametrize("gate", GATES)
    def test_config_and_environment(self, trained: TrainedRuns, gate: str) -> None:
        run = trained(gate)
        assert read_object(run.folder / "config.json") == run.result["config"]
        assert read_object(run.folder / "environment.json") == run.result["environment"]
        environment = run.result["environment"]
        assert environment["packages"]["torch"]
        assert (environment["threads"], environment["processes"]) == (1, 1)
        assert environment["experts_backend"] == (None if gate == "dense" else "grouped")
        options = run.result["config"]["gate_options"]
        assert options.get("threshold") == (0.1 if gate == "adaptive" else None)
        assert options.get("k") == {"top-1": 1, "top-2": 2}.get(gate)

    def test_json_is_the_result_and_nothing_else(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli.train("adaptive", tmp_path, "--json")
        assert answer.json() == read_object(only_run(tmp_path) / "result.json")
        assert answer.out.count("\n") == 1

    def test_threshold_option(self, cli: CommandLine, tmp_path: Path) -> None:
        results = {
            threshold: cli.train("adaptive", tmp_path, "--threshold", threshold, "--json").json()
            for threshold in ("0", "0.3", "1")
        }
        shares = [result["routing"]["share_by_count"] for result in results.values()]
        assert sum(shares[0][2:]) < 0.01
        assert sum(shares[0][2:]) < shares[1][2] < shares[2][2] == 1
        assert len(list(tmp_path.glob("mini/runs/*"))) == 3

    def test_steps_and_epochs(self, cli: CommandLine, tmp_path: Path) -> None:
        """64 samples in batches of 16: 1.5 epochs are 6 steps."""
        drop = {"training.steps": None}
        by_epochs = cli.train("top-1", tmp_path / "a", "--epochs", 1.5, "--json", settings=drop).json()
        by_steps = cli.train("top-1", tmp_path / "b", "--steps", 6, "--json", settings=drop).json()
        assert (
            (by_epochs["steps"], by_epochs["epochs"]) == (by_steps["steps"], by_steps["epochs"]) == (6, 1.5)
        )
        assert losses(tmp_path / "a") == losses(tmp_path / "b")

    def test_a_loss_that_is_not_finite_fails(self, cli: CommandLine, tmp_path: Path) -> None:
        answer = cli.train("dense", tmp_path, settings={"training.learning_rate": 1e30})
        assert answer.status == 1
        (line,) = [line for line in answer.err.splitlines() if line.startswith("repro: ")]
        assert "the loss is" in line
        assert "learning_rate" in line
        assert "Traceback" not in answer.err
        assert answer.out == ""
        assert not (only_run(tmp_path) / "result.json").exists()


@pytest.mark.parametrize("task", ["squad", "wmt19", "cnn_dailymail", "wikitext", "soda"])
def test_prints_a_row_of_every_task(trained: TrainedRuns, task: str) -> None:
    run = trained("adaptive", task)
    header, row, *rest = run.answer.out.splitlines()
    assert run.result["metric"]["name"] in header
    assert f"{run.result['metric']['value']:.4g}" in row
    assert run.folder.name in rest
    assert "…" not in run.answer.out
    assert all(len(line) <= 80 for line in run.answer.out.splitlines())


class TestAgain:
    def test_a_finished_run_is_not_repeated(self, cli: CommandLine, trained: TrainedRuns) -> None:
        run = trained("adaptive")
        before = snapshot(run.results)
        again = cli.train("adaptive", run.results)
        assert again.status == 0
        assert again.out == run.answer.out
        assert f"{run.folder.name} was finished before" in again.err
        assert snapshot(run.results) == before

    def test_fresh_trains_again(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
        run = trained("adaptive")
        shutil.copytree(run.results, tmp_path, dirs_exist_ok=True)
        (only_run(tmp_path) / "left-over").write_text("", encoding="utf-8")
        answer = cli.train("adaptive", tmp_path, "--fresh")
        assert answer.status == 0
        assert "finished before" not in answer.err
        result = read_object(only_run(tmp_path) / "result.json")
        assert result["train_seconds"] != run.result["train_seconds"]
        assert result["eval_loss"] == run.result["eval_loss"]
        assert [len(leg) for leg in read_legs(only_run(tmp_path))] == [7, 2]
        assert not (only_run(tmp_path) / "left-over").exists()

    def test_another_setting_is_another_run(self, cli: CommandLine, tmp_path: Path) -> None:
        for seed in (0, 1):
            assert cli.train("top-1", tmp_path, "--seed", seed).status == 0
        names = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.glob("mini/runs/*"))
        assert names == ["sst2-top-1-s0", "sst2-top-1-s1"]

    def test_a_row_of_long_numbers_fits(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
        """The row is printed from the result, so one with long numbers stands for a long run."""
        shutil.copytree(trained("adaptive").results, tmp_path, dirs_exist_ok=True)
        path = only_run(tmp_path) / "result.json"
        result = read_object(path) | {"train_seconds": 12345.6, "seconds_per_step": 1.2345}
        for metric in ("metric", "metric_top1"):
            result[metric]["value"] = 0.4688
        result["flops"]["per_token"] = 43_900
        path.write_text(json.dumps(result), encoding="utf-8")
        answer = cli.train("adaptive", tmp_path)
        header, row, *_ = answer.out.splitlines()
        for title in ("Task", "Scheme", "Train s", "ms/step", "FLOPs/token", "Two", "accuracy", "top-1"):
            assert title in header
        for value in ("adaptive", "12345.6", "1234", "43.9k", "0.4688"):
            assert value in row
        assert "…" not in answer.out
        assert all(len(line) <= 80 for line in answer.out.splitlines())


class TestOptions:
    @pytest.mark.parametrize("gate", ["top-2", "adaptive"])
    def test_back_ends_agree(self, cli: CommandLine, tmp_path: Path, gate: str) -> None:
        executed = {}
        for backend in ("loop", "padded", "grouped"):
            out = tmp_path / backend
            result = cli.train(gate, out, "--experts-backend", backend, "--json").json()
            assert result["environment"]["experts_backend"] == backend
            executed[backend] = result["flops"]["per_token_executed"]
        for backend in ("padded", "grouped"):
            assert losses(tmp_path / backend) == pytest.approx(losses(tmp_path / "loop"), rel=1e-4)
        assert executed["loop"] == pytest.approx(executed["grouped"], rel=1e-3)
        assert executed["padded"] > executed["loop"]

    def test_upcycled_experts_start_as_the_dense_model(self, cli: CommandLine, tmp_path: Path) -> None:
        """Copies of the dense FFN with weights that sum to 1 change nothing before the first step."""
        dense = cli.train("dense", tmp_path / "dense", "--json").json()
        curve = {}
        for init in ("upcycle", "random"):
            settings = {"experts.init": init, "gate.combine": "renormalised"}
            curve[init] = cli.train("top-2", tmp_path / init, "--json", settings=settings).json()["curve"]
        assert curve["upcycle"][0][2] == pytest.approx(dense["curve"][0][2], rel=1e-6)
        assert curve["random"][0][2] != pytest.approx(dense["curve"][0][2], rel=1e-4)

    @pytest.mark.parametrize("order", [*ORDERS_BY_RATIOS, "length", "random"])
    def test_curricula(self, cli: CommandLine, tmp_path: Path, order: str) -> None:
        result = cli.train("adaptive", tmp_path, "--curriculum", order, "--json").json()
        steps = read_lines(only_run(tmp_path) / "steps.jsonl")
        tokens = [row["tokens"] for row in steps]
        assert read_object(only_run(tmp_path) / "config.json")["training"]["curriculum"] == order
        assert (tokens[:4] == sorted(tokens[:4])) is (order == "length")
        if order == "length":
            assert tokens[4:6] == tokens[:2]
        if order == "count":
            # The second epoch starts with the samples that had the fewest two-expert tokens.
            assert tokens[4] < sum(tokens[:4]) / 4
        seconds = [row["seconds"] for row in read_path(only_run(tmp_path))]
        medians = [statistics.median(part) for part in (seconds[:4], seconds[4:])]
        assert result["seconds_per_step_by_epoch"] == pytest.approx(medians)
        place = result["curriculum"]["place_ratio_correlation"]
        assert place is None if order == "random" else -1 <= place <= 1
        if order == "mean":
            assert place > 0.99  # samples of equal ratios have places of their own

    @pytest.mark.parametrize("gate", ["adaptive", "ratio"])
    def test_a_curriculum_that_never_acts(self, cli: CommandLine, tmp_path: Path, gate: str) -> None:
        """Four steps are one epoch: refused if asked for, before the first step; by default random."""
        few = {"training.steps": 4}
        refused(
            cli.train(gate, tmp_path, "--curriculum", "cosine", settings=few),
            r"'cosine' acts from .* after 4 steps, .* ends after 4; give more, or --curriculum random",
        )
        assert not list(tmp_path.rglob("steps.jsonl"))
        done = cli.train(gate, tmp_path / "default", settings=few)
        assert done.status == 0, done.err
        assert done.err.count(f"sst2, {gate}: data in random order") == 1
        config = read_object(only_run(tmp_path / "default") / "config.json")
        assert config["training"]["curriculum"] == "random"

    @pytest.mark.parametrize("gate", ["dense", "adaptive"])
    def test_accumulation_is_one_big_batch(self, cli: CommandLine, tmp_path: Path, gate: str) -> None:
        """Without dropout, and without the balance loss, which is not a sum over samples."""
        settings: dict[str, object] = {
            "model.config.hidden_dropout_prob": 0.0,
            "model.config.attention_probs_dropout_prob": 0.0,
            "training.curriculum": "length",
        }
        if gate == "adaptive":
            settings["gate.balance"] = 0.0
        one = settings | {"training.batch_size": 32}
        whole = cli.train(gate, tmp_path / "whole", "--json", settings=one).json()
        cut = settings | {"training.batch_size": 8, "training.accumulation": 4}
        parts = cli.train(gate, tmp_path / "parts", "--json", settings=cut).json()
        assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
        norms = [
            [row["gradient_norm"] for leg in read_legs(only_run(tmp_path / name)) for row in leg]
            for name in ("whole", "parts")
        ]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        assert parts["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-5)
        assert (parts["steps"], parts["epochs"], parts["tokens"]) == (6, 3, whole["tokens"])

    @pytest.mark.parametrize("gate", ["dense", "adaptive"])
    def test_bf16(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path, gate: str) -> None:
        result = cli.train(gate, tmp_path, "--precision", "bf16", "--json").json()
        assert result["environment"]["precision"] == "bf16"
        assert trained(gate).result["environment"]["precision"] == "fp32"
        exact = trained(gate).result
        assert result["eval_loss"] != exact["eval_loss"]
        assert result["eval_loss"] == pytest.approx(exact["eval_loss"], rel=0.02)

    def test_tensorboard(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
        answer = cli.train("adaptive", tmp_path, "--tensorboard")
        assert answer.status == 0, answer.err
        (events,) = only_run(tmp_path).rglob("events.out.tfevents.*")
        assert b"gradient_norm" in events.read_bytes()
        assert read_object(only_run(tmp_path) / "result.json")["run_id"] == trained("adaptive").folder.name

    def test_every_second_layer(self, cli: CommandLine, tmp_path: Path) -> None:
        result = cli.train("top-2", tmp_path, "--json", settings={"experts.every": 2}).json()
        assert len(result["routing"]["share_by_count_per_layer"]) == 1

    def test_sparse_layers_cost_less(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
        result = cli.train("top-2", tmp_path, "--json", settings={"experts.every": 2}).json()
        every = trained("top-2").result["flops"]["per_token"]
        assert trained("dense").result["flops"]["per_token"] < result["flops"]["per_token"] < every


class TestPretrained:
    @pytest.mark.parametrize("gate", ["dense", "adaptive"])
    def test_starts_from_a_folder(
        self, cli: CommandLine, tmp_path: Path, bert_folder: Path, gate: str
    ) -> None:
        import safetensors.torch

        settings = without_model() | {"training.learning_rate": 1e-6}
        if gate == "adaptive":
            settings["experts.init"] = "upcycle"
        result = cli.train(gate, tmp_path, "--model", bert_folder, "--json", settings=settings).json()
        assert result["config"]["model"]["checkpoint"].startswith("dir:tiny-bert:")
        assert str(bert_folder) not in json.dumps(result)
        before = safetensors.torch.load_file(bert_folder / "model.safetensors")
        after = safetensors.torch.load_file(only_run(tmp_path) / "model" / "model.safetensors")
        name = "embeddings.word_embeddings.weight"
        assert (before[name] - after[f"bert.{name}"]).abs().max() < 1e-4

    def test_options_of_the_model_can_be_changed(
        self, cli: CommandLine, tmp_path: Path, bert_folder: Path
    ) -> None:
        settings = without_model() | {"model.config.hidden_dropout_prob": 0.3}
        assert cli.train("dense", tmp_path, "--model", bert_folder, settings=settings).status == 0
        assert read_object(only_run(tmp_path) / "model" / "config.json")["hidden_dropout_prob"] == 0.3

    def test_a_trained_run_is_a_model_folder(
        self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path
    ) -> None:
        folder = trained("dense").folder / "model"
        assert cli.train("top-1", tmp_path, "--model", folder, settings=without_model()).status == 0


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

    def test_formats_of_a_folder_are_the_same(
        self, cli: CommandLine, tmp_path: Path, data_folder: Path
    ) -> None:
        runs = {}
        for suffix in (".jsonl", ".jsonl.gz", ".csv", ".parquet"):
            folder = tmp_path / suffix[1:]
            shutil.copytree(data_folder, folder)
            self.write_all(folder, suffix)
            result = cli.train("adaptive", folder / "results", "--data", folder, "--json").json()
            assert result["data"]["source"] == "folder"
            # 8 rows of each sentence: two sentences are the dev split.
            assert result["data"]["counts"] == {"train": 48, "dev": 16, "validation": 32}
            runs[suffix] = (losses(folder / "results"), str(result["data"]["fingerprints"]))
        assert len({tuple(steps) for steps, _ in runs.values()}) == 1
        assert len({fingerprints for _, fingerprints in runs.values()}) == 1

    def test_samples_are_limited(self, cli: CommandLine, tmp_path: Path, data_folder: Path) -> None:
        limits = {"data.train_samples": 20, "data.validation_samples": 10}
        result = cli.train("dense", tmp_path, "--data", data_folder, "--json", settings=limits).json()
        assert result["data"]["counts"] == {"train": 20, "dev": 16, "validation": 10}
        assert result["metric"]["count"] == 10

    @pytest.mark.parametrize("layout", ["data/{}-00000-of-00001.parquet", "{}.jsonl"])
    def test_hub(
        self,
        cli: CommandLine,
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
        hub = cli.train("adaptive", tmp_path / "hub", "--data", "hub", "--json").json()
        folder = cli.train("adaptive", tmp_path / "folder", "--data", data_folder, "--json").json()
        assert hub["data"]["source"] == "hub"
        assert hub["data"]["counts"] == {"train": 48, "dev": 16, "validation": 32}
        assert hub["data"]["fingerprints"] == folder["data"]["fingerprints"]
        assert losses(tmp_path / "hub") == losses(tmp_path / "folder")
        assert cli("eval", only_run(tmp_path / "hub"), "--split", "test").status == 0
