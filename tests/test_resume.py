"""The same numbers bit for bit: repeated, killed and resumed, interrupted, and evaluated afterwards."""

import json
import logging
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repro.errors import Interrupted
from repro.experiments import Override, resolve
from repro.run import execute

# 16 steps an epoch; dropout, a random first epoch, then orders by the ratios of the epoch before.
LONG: dict[str, Any] = {
    "training.steps": None,
    "training.epochs": 4,
    "training.checkpoint_every": 5,
    "training.learning_rate": 0.003,
    "data.train_samples": 256,
    "evaluation.every": 8,
}
# Batches of as many samples as their lengths allow, two stacks, and the paper's curriculum.
TRANSLATION: dict[str, Any] = {
    "training.steps": None,
    "training.epochs": 6,
    "training.checkpoint_every": 3,
    "data.train_samples": 40,
    "evaluation.every": 10,
    "task.beams": 1,
}
SAME = ("metric", "metrics", "metric_top1", "eval_loss", "routing", "flops", "steps", "tokens", "epochs")


def only_run(results: Path) -> Path:
    (folder,) = results.glob("*/runs/*")
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a record file."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("seconds", "train_seconds")}


def records(results: Path) -> list[list[dict[str, Any]]]:
    """Everything that a run recorded, without times."""
    folder = only_run(results)
    names = ("steps.jsonl", "evals.jsonl", "routing.jsonl")
    return [[timeless(row) for row in rows(folder / name)] for name in names]


def result(results: Path) -> dict[str, Any]:
    value = json.loads((only_run(results) / "result.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def assert_same_run(results: Path, reference: Path) -> None:
    """Losses, routing, curve and final numbers are those of the other run, bit for bit."""
    assert records(results) == records(reference)
    found, expected = result(results), result(reference)
    assert {key: found[key] for key in SAME} == {key: expected[key] for key in SAME}
    assert [[row[0], row[2]] for row in found["curve"]] == [[row[0], row[2]] for row in expected["curve"]]
    assert found["run_id"] == expected["run_id"]
    seconds = [row["seconds"] for row in rows(only_run(results) / "steps.jsonl")]
    assert found["train_seconds"] == pytest.approx(sum(seconds))


@pytest.fixture(scope="module")
def reference(repro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the long run, uninterrupted."""
    results: Path = tmp_path_factory.mktemp("reference")
    answer = repro.train("adaptive", results, **LONG)
    assert answer.status == 0, answer.err
    return results


class TestRepeated:
    def test_reference_learns_and_orders_by_ratios(self, reference: Path) -> None:
        """What the other tests compare must depend on everything that has to survive."""
        steps = rows(only_run(reference) / "steps.jsonl")
        assert [row["step"] for row in steps] == list(range(1, 65))
        assert [row["epoch"] for row in steps] == [epoch for epoch in range(4) for _ in range(16)]
        assert len({row["loss"] for row in steps}) == 64
        assert [row[0] for row in result(reference)["curve"]] == [0, 8, 16, 24, 32, 40, 48, 56, 64]
        assert result(reference)["config"]["training"]["curriculum"] == "cosine"
        assert result(reference)["eval_loss"] < result(reference)["curve"][0][2]

    @pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
    def test_same_seed_same_losses(self, repro: Any, trained: Any, tmp_path: Path, gate: str) -> None:
        assert repro.train(gate, tmp_path).status == 0
        assert_same_run(tmp_path, trained(gate).results)

    def test_another_seed_gives_other_losses(self, repro: Any, trained: Any, tmp_path: Path) -> None:
        assert repro.train("adaptive", tmp_path, "--seed", 1).status == 0
        ours, theirs = records(tmp_path)[0], records(trained("adaptive").results)[0]
        assert len(ours) == len(theirs)
        assert all(a["loss"] != b["loss"] for a, b in zip(ours, theirs, strict=True))


def wait_for_step(process: subprocess.Popen[str], results: Path, step: int) -> None:
    """Wait until a step is recorded and a checkpoint is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for folder in results.glob("*/runs/*"):
            if (folder / "checkpoint").exists() and len(rows(folder / "steps.jsonl")) >= step:
                return
        time.sleep(0.002)
    raise AssertionError("no checkpoint within two minutes")


@pytest.fixture
def started(repro: Any, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The long run, in a process of its own that a test may end."""
    process = repro.start(*repro.train_arguments("adaptive", tmp_path, **LONG))
    yield process
    process.kill()
    process.communicate()


def stop_after(
    changes: dict[str, Any], results: Path, step: int, task: str = "sst2", gate: str = "adaptive"
) -> None:
    """Do a run in this process until a step, as after Ctrl-C."""
    settings = {key: value for key, value in changes.items() if value is not None}
    config, places = resolve(
        task=task,
        scale="mini",
        gate=gate,
        seed=0,
        data=None,
        model=None,
        overrides={key: Override(value, key) for key, value in settings.items()},
        results=results,
    )
    seen: list[int] = []
    with pytest.raises(Interrupted, match=f"stopped after step {step} of "):
        execute(
            config,
            places,
            report=lambda record: seen.append(record["step"]),
            should_stop=lambda: seen[-1] == step,
        )


class TestStopped:
    def test_killed(
        self, repro: Any, tmp_path: Path, reference: Path, started: subprocess.Popen[str]
    ) -> None:
        """In the third epoch, whose order comes from the second, beyond a checkpoint in its middle.

        The killed process and those that continue and compare are different ones.
        """
        wait_for_step(started, tmp_path, 38)
        started.send_signal(signal.SIGKILL)
        assert started.wait(timeout=60) == -signal.SIGKILL
        folder = only_run(tmp_path)
        assert not (folder / "result.json").exists()
        before = rows(folder / "steps.jsonl")
        assert 38 <= len(before) < 64
        answer = repro.train("adaptive", tmp_path, **LONG)
        assert answer.status == 0, answer.err
        assert_same_run(tmp_path, reference)
        # It went on from a checkpoint: what was done before it was not done again.
        after = rows(folder / "steps.jsonl")
        assert after[:35] == before[:35]
        assert after[len(before) :] != []
        assert not list(folder.glob("checkpoint*"))

    def test_interrupted(
        self, repro: Any, tmp_path: Path, reference: Path, started: subprocess.Popen[str]
    ) -> None:
        wait_for_step(started, tmp_path, 7)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=60)
        assert started.returncode == 130
        assert out == ""
        assert "Traceback" not in err
        stopped, last = err.splitlines()[-2:]
        assert stopped.startswith("stopping after this step")
        folder = only_run(tmp_path)
        done = rows(folder / "steps.jsonl")
        assert last == f"repro: stopped after step {len(done)} of 64; the same command continues"
        assert (folder / "checkpoint").is_dir()
        assert not (folder / "result.json").exists()
        assert repro.train("adaptive", tmp_path, **LONG).status == 0
        assert_same_run(tmp_path, reference)
        assert rows(folder / "steps.jsonl")[: len(done)] == done

    def stop_after(self, repro: Any, results: Path, step: int) -> None:
        """Do the long run in this process until a step, as after Ctrl-C."""
        stop_after(repro.small | LONG, results, step)

    def test_stopped_anywhere(self, repro: Any, tmp_path: Path, reference: Path) -> None:
        """After the first step, at the ends of epochs and of evaluations, several times."""
        for step in (1, 16, 17, 31, 32, 63):
            self.stop_after(repro, tmp_path, step)
        assert repro.train("adaptive", tmp_path, **LONG).status == 0
        assert_same_run(tmp_path, reference)

    def test_killed_while_checkpoints_change_places(
        self, repro: Any, tmp_path: Path, reference: Path
    ) -> None:
        """Between the two renames only `checkpoint.old` and `checkpoint.new` exist."""
        self.stop_after(repro, tmp_path, 20)
        folder = only_run(tmp_path)
        (folder / "checkpoint").rename(folder / "checkpoint.old")
        (folder / "checkpoint.new").mkdir()
        with (folder / "steps.jsonl").open("a", encoding="utf-8") as stream:
            stream.write('{"step": 21, "loss": 9.9}\n{"step": 22, "lo')
        done = rows(folder / "steps.jsonl")[:20]
        assert repro.train("adaptive", tmp_path, **LONG).status == 0
        assert_same_run(tmp_path, reference)
        assert rows(folder / "steps.jsonl")[:20] == done
        assert not list(folder.glob("checkpoint*"))

    def test_killed_before_the_first_checkpoint(self, repro: Any, tmp_path: Path, reference: Path) -> None:
        self.stop_after(repro, tmp_path, 3)
        shutil.rmtree(only_run(tmp_path) / "checkpoint")
        assert repro.train("adaptive", tmp_path, **LONG).status == 0
        assert_same_run(tmp_path, reference)

    def test_fresh_starts_over(self, repro: Any, tmp_path: Path, reference: Path) -> None:
        self.stop_after(repro, tmp_path, 20)
        done = rows(only_run(tmp_path) / "steps.jsonl")
        assert repro.train("adaptive", tmp_path, "--fresh", **LONG).status == 0
        assert_same_run(tmp_path, reference)
        assert rows(only_run(tmp_path) / "steps.jsonl")[:20] != done

    def test_one_process_at_a_time(self, repro: Any, tmp_path: Path) -> None:
        import fcntl

        self.stop_after(repro, tmp_path, 2)
        with (only_run(tmp_path) / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            answer = repro.train("adaptive", tmp_path, **LONG)
        assert answer.status == 2
        assert answer.err == f"repro: {only_run(tmp_path)}: another process is doing this run\n"


@pytest.fixture(scope="module")
def whole(repro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of the run on translations, uninterrupted."""
    results: Path = tmp_path_factory.mktemp("translation")
    answer = repro.train("adaptive", results, task="wmt19", **TRANSLATION)
    assert answer.status == 0, answer.err
    return results


class TestTranslation:
    """The same for an encoder-decoder with batches of a number of tokens."""

    def test_whole_run(self, whole: Path) -> None:
        """Batches differ in size, and later epochs have another order."""
        steps = rows(only_run(whole) / "steps.jsonl")
        assert len(steps) == result(whole)["steps"] > 30
        assert [row["epoch"] for row in steps] == sorted(row["epoch"] for row in steps)
        assert {row["epoch"] for row in steps} == set(range(6))
        assert len({row["padded_tokens"] for row in steps}) > 4
        assert result(whole)["config"]["training"]["curriculum"] == "cosine"
        assert result(whole)["config"]["training"]["batch_size"] is None
        assert result(whole)["epochs"] == pytest.approx(6)

    def test_killed(self, repro: Any, tmp_path: Path, whole: Path) -> None:
        process = repro.start(*repro.train_arguments("adaptive", tmp_path, task="wmt19", **TRANSLATION))
        try:
            wait_for_step(process, tmp_path, 14)
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL
        finally:
            process.kill()
            process.communicate()
        before = rows(only_run(tmp_path) / "steps.jsonl")
        assert 14 <= len(before) < result(whole)["steps"]
        assert not (only_run(tmp_path) / "result.json").exists()
        assert repro.train("adaptive", tmp_path, task="wmt19", **TRANSLATION).status == 0
        assert_same_run(tmp_path, whole)
        after = rows(only_run(tmp_path) / "steps.jsonl")
        assert after[:12] == before[:12]

    def test_a_checkpoint_is_silent(
        self, repro: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Weights that are tied, as here, are no news; also where no command has quieted the libraries."""
        monkeypatch.setattr(logging.getLogger("accelerate.utils.other"), "level", logging.NOTSET)
        stop_after(repro.small_by_task["wmt19"] | TRANSLATION, tmp_path, 1, "wmt19")
        assert (only_run(tmp_path) / "checkpoint").is_dir()
        assert "shared tensor" not in caplog.text

    def test_stopped_anywhere(self, repro: Any, tmp_path: Path, whole: Path) -> None:
        """In the first epoch, on both sides of its end, and in a later one."""
        epochs = [row["epoch"] for row in rows(only_run(whole) / "steps.jsonl")]
        end = epochs.count(0)
        for step in (1, end, end + 1, len(epochs) - 1):
            stop_after(repro.small_by_task["wmt19"] | TRANSLATION, tmp_path, step, "wmt19")
        assert repro.train("adaptive", tmp_path, task="wmt19", **TRANSLATION).status == 0
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
    repro: Any, tmp_path: Path, gate: str, options: dict[str, Any]
) -> None:
    """A threshold or a penalty that started anew would change the losses after the stop."""
    changes = {"training.steps": 8, "training.learning_rate": 0.003} | options
    assert repro.train(gate, tmp_path / "whole", **changes).status == 0
    stop_after(repro.small | changes, tmp_path / "parts", 5, gate=gate)
    assert repro.train(gate, tmp_path / "parts", **changes).status == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


class TestEvaluated:
    @pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
    def test_as_trained(self, repro: Any, trained: Any, gate: str) -> None:
        run = trained(gate)
        found = repro("eval", run.folder.name, "--out", run.results, "--json").json()
        assert found["metric"] == run.result["metric"]
        assert found["eval_loss"] == run.result["eval_loss"]
        assert (found["run_id"], found["split"]) == (run.folder.name, "validation")
        assert found["data"]["count"] == 32

    def test_long_run_both_gates(self, repro: Any, reference: Path) -> None:
        expected = result(reference)
        evaluate = ("eval", only_run(reference), "--json")
        same = repro(*evaluate).json()
        assert same["metric"] == expected["metric"]
        assert same["eval_loss"] == expected["eval_loss"]
        assert same["routing"] == expected["routing_eval"]
        top_1 = repro(*evaluate, "--gate-at-inference", "top-1").json()
        assert top_1["metric"] == expected["metric_top1"]
        assert top_1["eval_loss"] != expected["eval_loss"]
        assert top_1["routing"]["share_by_count"] == [0, 1]

    @pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
    def test_top_1_at_inference(self, repro: Any, trained: Any, gate: str) -> None:
        run = trained(gate)
        found = repro("eval", run.folder, "--gate-at-inference", "top-1", "--json").json()
        assert found["metric"] == run.result["metric_top1"]
        assert found["gate_at_inference"] == "top-1"

    def test_plain_output_shows_every_digit(self, repro: Any, reference: Path) -> None:
        answer = repro("eval", only_run(reference))
        expected = result(reference)
        assert answer.status == 0
        assert f"accuracy {expected['metric']['value']!r}" in answer.out
        assert f"loss {expected['eval_loss']!r}, 32 examples" in answer.out
        assert all(len(line) <= 80 for line in answer.out.splitlines())

    def test_changes_nothing(self, repro: Any, trained: Any) -> None:
        folder = trained("adaptive").folder
        before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
        assert repro("eval", folder).status == 0
        assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before

    def test_test_split(self, repro: Any, reference: Path) -> None:
        found = repro("eval", only_run(reference), "--split", "test", "--json").json()
        assert found["split"] == "test"
        assert found["data"]["count"] == 32
        assert found["eval_loss"] != result(reference)["eval_loss"]
        assert found["data"]["fingerprint"] != result(reference)["data"]["fingerprint"]

    @pytest.mark.parametrize("precision", ["bf16"])
    def test_other_precision(self, repro: Any, tmp_path: Path, precision: str) -> None:
        trained = repro.train("adaptive", tmp_path, "--precision", precision, "--json").json()
        found = repro("eval", only_run(tmp_path), "--json").json()
        assert (found["metric"], found["eval_loss"]) == (trained["metric"], trained["eval_loss"])

    def test_data_of_a_folder(self, repro: Any, tmp_path: Path, data_folder: Path) -> None:
        """From where they lay, from where they lie now, and never from nowhere."""
        trained = repro.train("adaptive", tmp_path / "out", "--data", data_folder, "--json").json()
        evaluate = ("eval", only_run(tmp_path / "out"), "--json")
        found = repro(*evaluate).json()
        assert (found["metric"], found["eval_loss"]) == (trained["metric"], trained["eval_loss"])
        assert repro(*evaluate, "--split", "test").json()["data"]["count"] == 16
        moved = data_folder.rename(tmp_path / "moved")
        answer = repro(*evaluate)
        assert answer.status == 2
        assert answer.err.count("\n") == 1
        assert str(data_folder) in answer.err
        assert repro(*evaluate, "--data", moved).json()["eval_loss"] == trained["eval_loss"]

    def test_relative_folder_of_data(
        self, repro: Any, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(data_folder.parent)
        trained = repro.train("top-1", Path("out"), "--data", data_folder.name, "--json").json()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        found = repro("eval", only_run(tmp_path / "out"), "--json").json()
        assert found["eval_loss"] == trained["eval_loss"]


def test_checkpoints_of_tied_weights_say_nothing(repro: Any, tmp_path: Path) -> None:
    answer = repro.train("dense", tmp_path, task="wikitext", **{"training.checkpoint_every": 2})
    assert answer.status == 0, answer.err
    assert "shared tensor" not in answer.err
