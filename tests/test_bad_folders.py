"""Models, results folders and runs that cannot be used: one line, nothing created, nothing changed."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import CommandLine, Settings, TrainedRuns, only_run, read_object, without_model
from refusals import contents, refused

from repro import plugins
from repro.tasks.base import load as load_task


class TestModel:
    def refuse(
        self,
        cli: CommandLine,
        results: Path,
        model: object,
        problem: str,
        settings: Settings | None = None,
    ) -> None:
        merged = without_model() | dict(settings or {})
        refused(cli.train("dense", results, "--model", model, settings=merged), problem)
        assert contents(results) == {}

    @pytest.fixture
    def results(self, tmp_path: Path) -> Path:
        (tmp_path / "results").mkdir()
        return tmp_path / "results"

    @pytest.fixture
    def model(self, tmp_path: Path, bert_folder: Path) -> Path:
        """A copy that a test may damage."""
        shutil.copytree(bert_folder, tmp_path / "model")
        return tmp_path / "model"

    def test_another_family(self, cli: CommandLine, results: Path, gpt2_folder: Path) -> None:
        self.refuse(cli, results, gpt2_folder, r"--model .*tiny-gpt2: it is a 'gpt2' model; .*'bert'")

    @pytest.mark.parametrize(
        ("task", "family", "other"),
        [
            (task, family, other)
            for task in plugins.names("tasks")
            for family in [load_task(task).BACKBONE]
            for other in ("bert", "gpt2", "bart", "fsmt")
            if other != family
        ],
    )
    def test_another_family_for_every_task(
        self,
        cli: CommandLine,
        results: Path,
        request: pytest.FixtureRequest,
        task: str,
        family: str,
        other: str,
    ) -> None:
        """Before a tokenizer of another kind is used for what it cannot do."""
        folder = request.getfixturevalue(f"{other}_folder")
        answer = cli.train("dense", results, "--model", folder, task=task, settings=without_model(task))
        refused(answer, rf"--model .*tiny-{other}: it is a '{other}' model; .*'{family}'")
        assert contents(results) == {}

    def test_a_tokenizer_of_the_other_direction(
        self, cli: CommandLine, results: Path, fsmt_folder: Path
    ) -> None:
        settings = without_model("wmt19") | {"task.direction": "en-de"}
        answer = cli.train("dense", results, "--model", fsmt_folder, task="wmt19", settings=settings)
        refused(answer, r"task\.direction.*en-de")
        assert contents(results) == {}

    def test_no_such_place(self, cli: CommandLine, results: Path, tmp_path: Path) -> None:
        self.refuse(cli, results, tmp_path / "none", r"--model .*none: ")

    def test_unknown_on_the_hub(self, cli: CommandLine, results: Path) -> None:
        self.refuse(cli, results, "nobody/nothing", r"--model nobody/nothing: ")

    def test_no_name_at_all(self, cli: CommandLine, results: Path) -> None:
        self.refuse(cli, results, "a b/c:d", r"--model a b/c:d: ")

    def test_empty_folder(self, cli: CommandLine, results: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        self.refuse(cli, results, tmp_path / "empty", r"--model .*empty: ")

    def test_without_configuration(self, cli: CommandLine, results: Path, model: Path) -> None:
        (model / "config.json").unlink()
        self.refuse(cli, results, model, r"--model .*model: ")

    def test_broken_configuration(self, cli: CommandLine, results: Path, model: Path) -> None:
        (model / "config.json").write_text("{", encoding="utf-8")
        self.refuse(cli, results, model, r"--model .*config\.json: cannot be read")

    def test_without_weights(self, cli: CommandLine, results: Path, model: Path) -> None:
        (model / "model.safetensors").unlink()
        self.refuse(cli, results, model, r"--model .*model: ")

    def test_broken_weights(self, cli: CommandLine, results: Path, model: Path) -> None:
        content = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(content[: len(content) // 2])
        self.refuse(cli, results, model, r"--model .*model\.safetensors: cannot be read")

    def test_without_tokenizer(self, cli: CommandLine, results: Path, model: Path) -> None:
        for path in model.glob("tokenizer*"):
            path.unlink()
        self.refuse(cli, results, model, r"--model .*model: .*tokenizer")

    def test_other_sizes_than_the_weights(self, cli: CommandLine, results: Path, model: Path) -> None:
        changes = {"model.config.hidden_size": 64}
        self.refuse(cli, results, model, r"(--model .*model|model\.config).*", changes)

    def test_longer_than_its_positions(self, cli: CommandLine, results: Path, model: Path) -> None:
        self.refuse(cli, results, model, r"data\.max_length: .*65.*64", {"data.max_length": 65})

    def test_unknown_option(self, cli: CommandLine, results: Path, model: Path) -> None:
        changes = {"model.config.hidden_dropout": 0.1}
        self.refuse(cli, results, model, r"unknown option 'hidden_dropout'.*'hidden_dropout_prob'", changes)

    def test_vocabulary(self, cli: CommandLine, results: Path, model: Path) -> None:
        self.refuse(cli, results, model, r"model\.vocab_size: has no effect", {"model.vocab_size": 300})


class TestResultsFolder:
    def test_below_a_file(self, cli: CommandLine, tmp_path: Path) -> None:
        """Permissions do not stop every user; a file in the place of a folder does."""
        (tmp_path / "file").write_text("kept", encoding="utf-8")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            refused(cli.train("dense", out), r"--out .*file.*: cannot be written")
        assert contents(tmp_path) == {"file": b"kept"}

    def test_another_configuration(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        path = only_run(tmp_path) / "config.json"
        other = read_object(path)
        other["training"]["learning_rate"] = 0.5
        path.write_text(json.dumps(other), encoding="utf-8")
        before = contents(tmp_path)
        refused(cli.train("dense", tmp_path), r"holds a run with another configuration; .*--out, or --fresh")
        assert contents(tmp_path) == before
        assert cli.train("dense", tmp_path, "--fresh").status == 0
        assert read_object(path) == trained("dense").result["config"]

    @pytest.mark.parametrize("name", ["config.json", "result.json"])
    @pytest.mark.parametrize("content", ["{", "[]", ""])
    def test_broken_files(
        self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path, name: str, content: str
    ) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        (only_run(tmp_path) / name).write_text(content, encoding="utf-8")
        before = contents(tmp_path)
        refused(cli.train("dense", tmp_path), re.escape(name))
        assert contents(tmp_path) == before

    def test_fresh_keeps_the_old_run_until_its_inputs_are_found(
        self, cli: CommandLine, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run on a data set of the hub, which cannot be had any more."""
        shutil.copytree(data_folder / "sst2", tmp_path / "stanfordnlp" / "sst2")
        monkeypatch.chdir(tmp_path)
        arguments = ("dense", tmp_path / "results", "--data", "hub")
        assert cli.train(*arguments).status == 0
        before = contents(tmp_path / "results")
        monkeypatch.chdir(data_folder)
        refused(cli.train(*arguments, "--fresh"), r"--data hub: cannot load")
        assert contents(tmp_path / "results") == before

    def test_list_with_a_broken_result(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        (only_run(tmp_path) / "result.json").write_text("{", encoding="utf-8")
        refused(cli("list", "runs", "--out", tmp_path), r"result\.json: cannot be read")


class TestEval:
    def test_unknown_run(self, cli: CommandLine, trained: TrainedRuns) -> None:
        run = trained("dense")
        near = run.folder.name[:-1]
        answer = cli("eval", near, "--out", run.results)
        refused(answer, rf"unknown run '{near}'\. Did you mean '{run.folder.name}'\?")

    def test_no_runs(self, cli: CommandLine, tmp_path: Path) -> None:
        refused(cli("eval", "sst2-dense-s0-00000000", "--out", tmp_path), r"unknown run .*Known: none")
        assert contents(tmp_path) == {}

    def test_unfinished_run(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path) -> None:
        shutil.copytree(trained("dense").results, tmp_path, dirs_exist_ok=True)
        (only_run(tmp_path) / "result.json").unlink()
        refused(cli("eval", only_run(tmp_path).name, "--out", tmp_path), r"not a finished run")

    def test_dense_has_no_gate(self, cli: CommandLine, trained: TrainedRuns) -> None:
        answer = cli("eval", trained("dense").folder, "--gate-at-inference", "top-1")
        refused(answer, r"--gate-at-inference top-1: the run is dense")

    @pytest.mark.parametrize("missing", ["model", "model/model.safetensors", "model/tokenizer.json"])
    def test_model_gone(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path, missing: str) -> None:
        shutil.copytree(trained("adaptive").results, tmp_path, dirs_exist_ok=True)
        path = only_run(tmp_path) / missing
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        refused(cli("eval", only_run(tmp_path)), r"model")

    def test_data(self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path, data_folder: Path) -> None:
        run = ("eval", trained("dense").folder)
        refused(cli(*run, "--data", tmp_path / "none"), r"--data .*none: no such folder")
        (data_folder / "sst2" / "test.jsonl").unlink()
        refused(cli(*run, "--data", data_folder, "--split", "test"), r"no split 'test'")
        assert cli(*run, "--data", data_folder).status == 0

    def test_inputs_unknown(self, cli: CommandLine, tmp_path: Path, data_folder: Path) -> None:
        """A run folder that was copied without the file that says where its data lay."""
        assert cli.train("dense", tmp_path / "results", "--data", data_folder).status == 0
        run = only_run(tmp_path / "results")
        (run / "places.json").unlink()
        refused(cli("eval", run), r"places\.json|--data")
