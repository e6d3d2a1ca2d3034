"""The same numbers bit for bit: repeated, killed and resumed, interrupted, and evaluated afterwards."""

import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import (
    SMALL,
    SMALL_BY_TASK,
    CommandLine,
    Json,
    TrainedRuns,
    only_run,
    read_lines,
    read_object,
    read_path,
    timeless,
)
from nursery import Started
from stopped import stop_after

# 16 steps an epoch; dropout, a random first epoch, then orders by the ratios of the epoch before.
LONG: dict[str, object] = {
    "training.steps": None,
    "training.epochs": 4,
    "training.checkpoint_every": 5,
    "training.learning_rate": 0.003,
    "data.train_samples": 256,
    "evaluation.points": 8,
}
# Batches of as many samples as their lengths allow, two stacks, and the paper's curriculum.
TRANSLATION: dict[str, object] = {
    "training.steps": None,
    "training.epochs": 6,
    "training.checkpoint_every": 3,
    "data.train_samples": 40,
    "evaluation.points": 3,
    "task.beams": 1,
}
SAME = ("metric", "metrics", "metric_top1", "eval_loss", "routing", "flops", "steps", "tokens", "epochs")


def records(results: Path) -> list[list[Json]]:
    """Everything that a run recorded, without times."""
    folder = only_run(results)
    names = ("steps.jsonl", "evals.jsonl", "routing.jsonl")
    return [
        [timeless(row) for row in read_lines(part / name)]
        for part in (folder, folder / "cooldown")
        for name in names
    ]


def result(results: Path) -> Json:
    return read_object(only_run(results) / "result.json")


def assert_same_run(results: Path, reference: Path) -> None:
    """Losses, routing, curve and final numbers are those of the other run, bit for bit."""
    assert records(results) == records(reference)
    ours, expected = result(results), result(reference)
    assert {key: ours[key] for key in SAME} == {key: expected[key] for key in SAME}
    assert [[row[0], row[2]] for row in ours["curve"]] == [[row[0], row[2]] for row in expected["curve"]]
    assert ours["run_id"] == expected["run_id"]
    seconds = [row["seconds"] for row in read_path(only_run(results))]
    assert ours["train_seconds"] == pytest.approx(sum(seconds))


@pytest.fixture(scope="module")
def reference(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the long run, uninterrupted."""
    results = tmp_path_factory.mktemp("reference")
    answer = cli.train("adaptive", results, settings=LONG)
    assert answer.status == 0, answer.err
    return results


class TestRepeated:
    def test_reference_learns_and_orders_by_ratios(self, reference: Path) -> None:
        """What the other tests compare must depend on everything that has to survive."""
        steps = read_lines(only_run(reference) / "steps.jsonl")
        assert [row["step"] for row in steps] == list(range(1, 72))
        assert [row["epoch"] for row in steps] == [step // 16 for step in range(71)]
        assert len({row["loss"] for row in steps}) == 71
        assert [row[0] for row in result(reference)["curve"]] == [0, 8, 16, 24, 32, 40, 48, 56, 64, 71]
        assert result(reference)["config"]["training"]["curriculum"] == "cosine"
        assert result(reference)["eval_loss"] < result(reference)["curve"][0][2]

    @pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
    def test_same_seed_same_losses(
        self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path, gate: str
    ) -> None:
        assert cli.train(gate, tmp_path).status == 0
        assert_same_run(tmp_path, trained(gate).results)

    def test_another_seed_gives_other_losses(
        self, cli: CommandLine, trained: TrainedRuns, tmp_path: Path
    ) -> None:
        assert cli.train("adaptive", tmp_path, "--seed", 1).status == 0
        ours, theirs = records(tmp_path)[0], records(trained("adaptive").results)[0]
        assert len(ours) == len(theirs)
        assert all(a["loss"] != b["loss"] for a, b in zip(ours, theirs, strict=True))


def assert_clean(folder: Path) -> None:
    """Of all checkpoints that from which the trunk may go on is left."""
    assert [path.name for path in folder.glob("checkpoint*/*")] == ["step-71"]
    assert not list(folder.glob("cooldown/checkpoint*"))


def wait_for_step(process: Started, results: Path, step: int) -> None:
    """Wait until a step is recorded and a checkpoint is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for folder in results.glob("*/runs/*"):
            if (folder / "checkpoint").exists() and len(read_lines(folder / "steps.jsonl")) >= step:
                return
        time.sleep(0.002)
    raise AssertionError("no checkpoint within two minutes")


@pytest.fixture
def started(cli: CommandLine, tmp_path: Path) -> Iterator[Started]:
    """The long run, in a process of its own that a test may end."""
    process = cli.start(*cli.train_arguments("adaptive", tmp_path, settings=LONG))
    yield process
    process.kill()
    process.communicate()


class TestStopped:
    def test_killed(self, cli: CommandLine, tmp_path: Path, reference: Path, started: Started) -> None:
        """In the third epoch, whose order comes from the second, beyond a checkpoint in its middle.

        The killed process and those that continue and compare are different ones.
        """
        wait_for_step(started, tmp_path, 38)
        started.send_signal(signal.SIGKILL)
        assert started.wait(timeout=60) == -signal.SIGKILL
        folder = only_run(tmp_path)
        assert not (folder / "result.json").exists()
        before = read_lines(folder / "steps.jsonl")
        assert 38 <= len(before) < 64
        answer = cli.train("adaptive", tmp_path, settings=LONG)
        assert answer.status == 0, answer.err
        assert_same_run(tmp_path, reference)
        # It went on from a checkpoint: what was done before it was not done again.
        after = read_lines(folder / "steps.jsonl")
        assert after[:35] == before[:35]
        assert after[len(before) :] != []
        assert_clean(folder)

    def test_interrupted(self, cli: CommandLine, tmp_path: Path, reference: Path, started: Started) -> None:
        wait_for_step(started, tmp_path, 7)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=60)
        assert started.returncode == 130
        assert out == ""
        assert "Traceback" not in err
        stopped, last = err.splitlines()[-2:]
        assert stopped.startswith("stopping after this step")
        folder = only_run(tmp_path)
        done = read_lines(folder / "steps.jsonl")
        assert last == f"repro: stopped after step {len(done)} of 84; the same command continues"
        assert (folder / "checkpoint").is_dir()
        assert not (folder / "result.json").exists()
        assert cli.train("adaptive", tmp_path, settings=LONG).status == 0
        assert_same_run(tmp_path, reference)
        assert read_lines(folder / "steps.jsonl")[: len(done)] == done

    def stop_after(self, results: Path, step: int) -> None:
        """Do the long run in this process until a step, as after Ctrl-C."""
        stop_after(SMALL | LONG, results, step)

    def test_stopped_anywhere(self, cli: CommandLine, tmp_path: Path, reference: Path) -> None:
        """After the first step, at the ends of epochs, of the trunk and of the branch, several times."""
        for step in (1, 16, 17, 31, 32, 63, 71, 72, 83, 84):
            self.stop_after(tmp_path, step)
        assert cli.train("adaptive", tmp_path, settings=LONG).status == 0
        assert_same_run(tmp_path, reference)

    def test_killed_while_a_checkpoint_is_written(
        self, cli: CommandLine, tmp_path: Path, reference: Path
    ) -> None:
        """It has no name yet; the one before it counts."""
        self.stop_after(tmp_path, 20)
        folder = only_run(tmp_path)
        shutil.copytree(folder / "checkpoint" / "step-20", folder / "checkpoint" / "step-25.tmp")
        with (folder / "steps.jsonl").open("a", encoding="utf-8") as stream:
            stream.write('{"step": 21, "loss": 9.9}\n{"step": 22, "lo')
        done = read_lines(folder / "steps.jsonl")[:20]
        assert cli.train("adaptive", tmp_path, settings=LONG).status == 0
        assert_same_run(tmp_path, reference)
        assert read_lines(folder / "steps.jsonl")[:20] == done
        assert_clean(folder)

    def test_killed_before_the_first_checkpoint(
        self, cli: CommandLine, tmp_path: Path, reference: Path
    ) -> None:
        self.stop_after(tmp_path, 3)
        shutil.rmtree(only_run(tmp_path) / "checkpoint")
        assert cli.train("adaptive", tmp_path, settings=LONG).status == 0
        assert_same_run(tmp_path, reference)

    def test_fresh_starts_over(self, cli: CommandLine, tmp_path: Path, reference: Path) -> None:
        self.stop_after(tmp_path, 20)
        done = read_lines(only_run(tmp_path) / "steps.jsonl")
        assert cli.train("adaptive", tmp_path, "--fresh", settings=LONG).status == 0
        assert_same_run(tmp_path, reference)
        assert read_lines(only_run(tmp_path) / "steps.jsonl")[:20] != done

    def test_one_process_at_a_time(self, cli: CommandLine, tmp_path: Path) -> None:
        import fcntl

        self.stop_after(tmp_path, 2)
        with (only_run(tmp_path) / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            answer = cli.train("adaptive", tmp_path, settings=LONG)
        assert answer.status == 2
        assert answer.err == f"repro: {only_run(tmp_path)}: another process is doing this run\n"


@pytest.fixture(scope="module")
def whole(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the run on translations, uninterrupted."""
    results = tmp_path_factory.mktemp("translation")
    answer = cli.train("adaptive", results, task="wmt19", settings=TRANSLATION)
    assert answer.status == 0, answer.err
    return results


class TestTranslation:
    """The same for an encoder-decoder with batches of a number of tokens."""

    def test_whole_run(self, whole: Path) -> None:
        """Batches differ in size, and later epochs have another order."""
        steps = read_lines(only_run(whole) / "steps.jsonl")
        budget = result(whole)["steps"]
        assert budget > 30
        assert len(steps) == budget + math.ceil(budget / 10)
        assert [row["epoch"] for row in steps] == sorted(row["epoch"] for row in steps)
        assert {row["epoch"] for row in steps} == set(range(7))
        assert len({row["padded_tokens"] for row in steps}) > 3
        assert result(whole)["config"]["training"]["curriculum"] == "cosine"
        assert result(whole)["config"]["training"]["batch_size"] is None
        assert result(whole)["epochs"] == pytest.approx(6)

    def test_killed(self, cli: CommandLine, tmp_path: Path, whole: Path) -> None:
        process = cli.start(*cli.train_arguments("adaptive", tmp_path, task="wmt19", settings=TRANSLATION))
        try:
            wait_for_step(process, tmp_path, 14)
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL
        finally:
            process.kill()
            process.communicate()
        before = read_lines(only_run(tmp_path) / "steps.jsonl")
        assert 14 <= len(before) < result(whole)["steps"]
        assert not (only_run(tmp_path) / "result.json").exists()
        assert cli.train("adaptive", tmp_path, task="wmt19", settings=TRANSLATION).status == 0
        assert_same_run(tmp_path, whole)
        after = read_lines(only_run(tmp_path) / "steps.jsonl")
        assert after[:12] == before[:12]

    def test_a_checkpoint_is_silent(
        self,
        cli: CommandLine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Weights that are tied, as here, are no news; also where no command has quieted the libraries."""
        monkeypatch.setattr(logging.getLogger("accelerate.utils.other"), "level", logging.NOTSET)
        stop_after(SMALL_BY_TASK["wmt19"] | TRANSLATION, tmp_path, 1, "wmt19")
        assert (only_run(tmp_path) / "checkpoint").is_dir()
        assert "shared tensor" not in caplog.text

    def test_stopped_anywhere(self, cli: CommandLine, tmp_path: Path, whole: Path) -> None:
        """In the first epoch, on both sides of its end, and in a later one."""
        epochs = [row["epoch"] for row in read_lines(only_run(whole) / "steps.jsonl")]
        end = epochs.count(0)
        for step in (1, end, end + 1, len(epochs) - 1):
            stop_after(SMALL_BY_TASK["wmt19"] | TRANSLATION, tmp_path, step, "wmt19")
        assert cli.train("adaptive", tmp_path, task="wmt19", settings=TRANSLATION).status == 0
        assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
    ("gate", "options"),
    [
        ("adaptive-budget", {"gate.share": 0.6, "gate.rate": 0.2}),
        ("ratio", {"gate.share": 0.6}),
        ("relu", {"gate.k": 1.2, "gate.factor": 3, "gate.penalty": 0.001}),
    ],
)
def test_the_state_of_a_gate_is_resumed(
    cli: CommandLine, tmp_path: Path, gate: str, options: dict[str, object]
) -> None:
    """A threshold or a penalty that started anew would change the losses after the stop."""
    changes = {"training.steps": 8, "training.learning_rate": 0.003} | options
    assert cli.train(gate, tmp_path / "whole", settings=changes).status == 0
    stop_after(SMALL | changes, tmp_path / "parts", 5, gate=gate)
    assert cli.train(gate, tmp_path / "parts", settings=changes).status == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


class TestEvaluated:
    @pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
    def test_as_trained(self, cli: CommandLine, trained: TrainedRuns, gate: str) -> None:
        run = trained(gate)
        evaluated = cli("eval", run.folder.name, "--out", run.results, "--json").json()
        assert evaluated["metric"] == run.result["metric"]
        assert evaluated["eval_loss"] == run.result["eval_loss"]
        assert (evaluated["run_id"], evaluated["split"]) == (run.folder.name, "validation")
        assert evaluated["data"]["count"] == 32

    def test_long_run_both_gates(self, cli: CommandLine, reference: Path) -> None:
        expected = result(reference)
        evaluate = ("eval", only_run(reference), "--json")
        same = cli(*evaluate).json()
        assert same["metric"] == expected["metric"]
        assert same["eval_loss"] == expected["eval_loss"]
        assert same["routing"] == expected["routing_eval"]
        top_1 = cli(*evaluate, "--gate-at-inference", "top-1").json()
        assert top_1["metric"] == expected["metric_top1"]
        assert top_1["eval_loss"] != expected["eval_loss"]
        assert top_1["routing"]["share_by_count"] == [0, 1]

    @pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
    def test_top_1_at_inference(self, cli: CommandLine, trained: TrainedRuns, gate: str) -> None:
        run = trained(gate)
        evaluated = cli("eval", run.folder, "--gate-at-inference", "top-1", "--json").json()
        assert evaluated["metric"] == run.result["metric_top1"]
        assert evaluated["gate_at_inference"] == "top-1"

    def test_plain_output_shows_every_digit(self, cli: CommandLine, reference: Path) -> None:
        answer = cli("eval", only_run(reference))
        expected = result(reference)
        assert answer.status == 0
        assert f"accuracy {expected['metric']['value']!r}" in answer.out
        assert f"loss {expected['eval_loss']!r}, 32 examples" in answer.out
        assert all(len(line) <= 80 for line in answer.out.splitlines())

    def test_changes_nothing(self, cli: CommandLine, trained: TrainedRuns) -> None:
        folder = trained("adaptive").folder
        before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
        assert cli("eval", folder).status == 0
        assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before

    def test_test_split(self, cli: CommandLine, reference: Path) -> None:
        evaluated = cli("eval", only_run(reference), "--split", "test", "--json").json()
        assert evaluated["split"] == "test"
        assert evaluated["data"]["count"] == 32
        assert evaluated["eval_loss"] != result(reference)["eval_loss"]
        assert evaluated["data"]["fingerprint"] not in result(reference)["data"]["fingerprints"].values()

    @pytest.mark.parametrize("precision", ["bf16"])
    def test_other_precision(self, cli: CommandLine, tmp_path: Path, precision: str) -> None:
        trained = cli.train("adaptive", tmp_path, "--precision", precision, "--json").json()
        evaluated = cli("eval", only_run(tmp_path), "--json").json()
        assert (evaluated["metric"], evaluated["eval_loss"]) == (trained["metric"], trained["eval_loss"])

    def test_data_of_a_folder(self, cli: CommandLine, tmp_path: Path, data_folder: Path) -> None:
        """From where they lay, from where they lie now, and never from nowhere."""
        trained = cli.train("adaptive", tmp_path / "out", "--data", data_folder, "--json").json()
        evaluate = ("eval", only_run(tmp_path / "out"), "--json")
        evaluated = cli(*evaluate).json()
        assert (evaluated["metric"], evaluated["eval_loss"]) == (trained["metric"], trained["eval_loss"])
        assert cli(*evaluate, "--split", "test").json()["data"]["count"] == 16
        moved = data_folder.rename(tmp_path / "moved")
        answer = cli(*evaluate)
        assert answer.status == 2
        assert answer.err.count("\n") == 1
        assert str(data_folder) in answer.err
        assert cli(*evaluate, "--data", moved).json()["eval_loss"] == trained["eval_loss"]

    def test_relative_folder_of_data(
        self, cli: CommandLine, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(data_folder.parent)
        trained = cli.train("top-1", Path("out"), "--data", data_folder.name, "--json").json()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        evaluated = cli("eval", only_run(tmp_path / "out"), "--json").json()
        assert evaluated["eval_loss"] == trained["eval_loss"]


def test_checkpoints_of_tied_weights_say_nothing(cli: CommandLine, tmp_path: Path) -> None:
    answer = cli.train("dense", tmp_path, task="wikitext", settings={"training.checkpoint_every": 2})
    assert answer.status == 0, answer.err
    assert "shared tensor" not in answer.err
