"""Checkpoints that were damaged, cut short, exchanged or left half removed."""

import errno
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import SMALL, Answer, CommandLine, only_run, read_lines, read_object, timeless
from stopped import stop_after

from repro.provenance import digest_of
from repro.run.setup import prepare
from repro.training import state_files
from repro.training.evaluator import evaluate as real_evaluate

SETTINGS: dict[str, object] = {
    **SMALL,
    "training.steps": 8,
    "training.checkpoint_every": 2,
    "training.curriculum": "cosine",
}


def losses(results: Path) -> list[object]:
    return [timeless(row) for row in read_lines(only_run(results) / "steps.jsonl")]


@pytest.fixture(scope="module")
def whole(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the run, uninterrupted."""
    results = tmp_path_factory.mktemp("whole")
    assert cli.train("adaptive", results, settings=SETTINGS).status == 0
    return results


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the run, stopped after step 5: checkpoints at 4 and 5."""
    results = tmp_path_factory.mktemp("stopped")
    stop_after(SETTINGS, results, 5)
    return results


@pytest.fixture
def results(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run."""
    shutil.copytree(stopped, tmp_path / "results")
    return tmp_path / "results"


def go_on(cli: CommandLine, results: Path) -> Answer:
    return cli.train("adaptive", results, settings=SETTINGS)


def newest(results: Path) -> Path:
    return only_run(results) / "checkpoint" / "step-5"


def assert_refused(answer: Answer, *parts: str) -> None:
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.count("\n") == 1, answer.err
    for part in ("repro: ", *parts):
        assert part in answer.err


def test_two_checkpoints_are_kept(results: Path) -> None:
    folder = only_run(results) / "checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == ["step-4", "step-5"]
    assert sorted(path.name for path in newest(results).iterdir()) == sorted(FILES)


def test_a_whole_checkpoint_is_continued(cli: CommandLine, results: Path, whole: Path) -> None:
    assert go_on(cli, results).status == 0
    assert losses(results) == losses(whole)
    assert [path.name for path in (only_run(results) / "checkpoint").iterdir()] == ["step-9"]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    # In a manifest that is within a digest.
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


TENSORS = "shard-00001-model-00001-of-00001.safetensors"
FILES = ("manifest.json", "random-0.pt", TENSORS, "state.pt")
DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "halved": halve,
    "empty": empty,
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_and_the_checkpoint_before_is_left(
    cli: CommandLine, results: Path, whole: Path, name: str, damage: str
) -> None:
    DAMAGES[damage](newest(results) / name)
    before = sorted(path for path in results.rglob("*") if path.name != ".lock")
    answer = go_on(cli, results)
    assert_refused(
        answer, f"checkpoint {newest(results)} is damaged: ", "delete it to go back to the one before"
    )
    assert sorted(path for path in results.rglob("*") if path.name != ".lock") == before
    if damage != "missing":
        return
    shutil.rmtree(newest(results))
    assert go_on(cli, results).status == 0
    assert losses(results) == losses(whole)


def test_fresh_needs_no_checkpoint(cli: CommandLine, results: Path, whole: Path) -> None:
    empty(newest(results) / "manifest.json")
    assert cli.train("adaptive", results, "--fresh", settings=SETTINGS).status == 0
    assert losses(results) == losses(whole)


@pytest.mark.parametrize("name", ["steps.jsonl", "evals.jsonl", "routing.jsonl"])
@pytest.mark.parametrize("damage", ["flipped", "halved", "missing"])
def test_records_that_were_cut_are_refused(cli: CommandLine, results: Path, name: str, damage: str) -> None:
    DAMAGES[damage](only_run(results) / name)
    assert_refused(go_on(cli, results), f"the records before it in {name} are ")


def test_records_beyond_the_checkpoint_are_dropped(cli: CommandLine, results: Path, whole: Path) -> None:
    for name in ("steps.jsonl", "evals.jsonl", "routing.jsonl"):
        with (only_run(results) / name).open("a", encoding="utf-8") as stream:
            stream.write('{"step": 6, "loss": 9.9}\n{"step": 7, "lo')
    assert go_on(cli, results).status == 0
    assert losses(results) == losses(whole)


class Bomb:
    """What a pickle of it does when it is loaded: make a folder."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._place),)


@pytest.mark.parametrize("name", ["random-0.pt", "state.pt"])
def test_no_pickle_is_executed(cli: CommandLine, results: Path, tmp_path: Path, name: str) -> None:
    """Also behind a manifest that fits."""
    place, target = tmp_path / "bomb", newest(results) / name
    with target.open("wb") as stream:
        pickle.dump(Bomb(place), stream)
    manifest = read_object(newest(results) / "manifest.json")
    manifest["files"][name] = digest_of(target)
    (newest(results) / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert_refused(go_on(cli, results), f"checkpoint {newest(results)}: does not fit this run", "--fresh")
    assert not place.exists()
    torch.save(Bomb(place), target)
    manifest["files"][name] = digest_of(target)
    (newest(results) / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert go_on(cli, results).status == 2
    assert not place.exists()


def test_a_checkpoint_of_another_layout(cli: CommandLine, results: Path) -> None:
    shutil.rmtree(only_run(results) / "checkpoint")
    (only_run(results) / "checkpoint").mkdir()
    (only_run(results) / "checkpoint" / "custom_checkpoint_0.pkl").write_bytes(b"")
    assert_refused(go_on(cli, results), "written by another version of repro; give --fresh")


def test_a_checkpoint_of_another_budget(cli: CommandLine, results: Path) -> None:
    """With other numbers of processes batches may be larger, and steps fewer."""
    path = newest(results) / "manifest.json"
    other = {"processes": 2, "budget": "4 steps (wsd, cooldown 1)"}
    path.write_text(json.dumps(read_object(path) | other), encoding="utf-8")
    assert_refused(
        go_on(cli, results),
        "2 processes wrote it in a run of 4 steps (wsd, cooldown 1); 1 would do 8 steps (wsd, cooldown 2)",
        "start as many, or give --fresh",
    )


def test_leftovers_are_removed(cli: CommandLine, results: Path, whole: Path) -> None:
    folder = only_run(results)
    shutil.copytree(newest(results), folder / "checkpoint" / "step-6.tmp")
    (folder / "result.json.123.tmp").write_text("{", encoding="utf-8")
    (folder / "model.tmp").mkdir()
    assert go_on(cli, results).status == 0
    assert losses(results) == losses(whole)
    assert not list(folder.rglob("*.tmp"))


def test_what_is_left_beside_a_result_is_removed(
    cli: CommandLine, whole: Path, stopped: Path, tmp_path: Path
) -> None:
    """A kill after the result was written and before the checkpoints were removed."""
    shutil.copytree(whole, tmp_path / "results")
    folder = only_run(tmp_path / "results")
    shutil.copytree(only_run(stopped) / "checkpoint", folder / "checkpoint", dirs_exist_ok=True)
    shutil.copytree(only_run(stopped) / "checkpoint", folder / "cooldown" / "checkpoint")
    answer = go_on(cli, tmp_path / "results")
    assert answer.status == 0
    assert "was finished before" in answer.err
    assert [path.name for path in (folder / "checkpoint").iterdir()] == ["step-9"]
    assert not (folder / "cooldown" / "checkpoint").exists()


def test_a_twin_that_comes_late_returns_the_result(
    cli: CommandLine, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends while the twin loads its data; it must not begin again, and empty the records."""
    shutil.copytree(whole, tmp_path / "results")
    folder = only_run(tmp_path / "results")
    result, hidden = folder / "result.json", folder / "hidden.json"
    result.rename(hidden)

    def slow_prepare(*arguments: object) -> object:
        prepared = prepare(*arguments)  # type: ignore[arg-type]
        hidden.rename(result)
        return prepared

    monkeypatch.setattr("repro.run.launch.prepare", slow_prepare)
    before = (folder / "steps.jsonl").read_bytes()
    assert go_on(cli, tmp_path / "results").status == 0
    assert (folder / "steps.jsonl").read_bytes() == before


def test_stopped_in_the_last_evaluation(
    cli: CommandLine, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a batch; the model is there already, and the same command evaluates the rest only."""
    from repro.run import result as module

    calls: list[int] = []

    def evaluate_and_stop(*arguments: object, **options: object) -> object:
        calls.append(1)
        pause = options["pause"]
        object.__setattr__(pause, "should_stop", lambda: True)
        return real_evaluate(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", evaluate_and_stop)
        answer = go_on(cli, tmp_path)
    assert answer.status == 130
    assert answer.err.endswith("of an evaluation; the same command continues\n")
    folder = only_run(tmp_path)
    assert len(calls) == 1
    assert (folder / "model" / "model.safetensors").is_file()
    assert [path.name for path in (folder / "cooldown").glob("checkpoint/step-8/evaluation*")] == [
        "evaluation.0"
    ]
    assert not (folder / "result.json").exists()
    answer = go_on(cli, tmp_path)
    assert answer.status == 0
    assert "step 11/11" not in answer.err
    ours, theirs = (read_object(only_run(one) / "result.json") for one in (tmp_path, whole))
    for key in ("metric", "metric_top1", "eval_loss", "routing", "routing_eval", "flops_eval", "curriculum"):
        assert ours[key] == theirs[key], key
    assert losses(tmp_path) == losses(whole)


def test_a_damaged_part_of_an_evaluation_is_made_again(tmp_path: Path) -> None:
    part = tmp_path / "evaluation.0"
    assert state_files.load_sealed(part) is None
    state_files.save_sealed({"batches": 3, "predictions": {1: (0.5, 2, 3)}}, part)
    assert state_files.load_sealed(part) == {"batches": 3, "predictions": {1: (0.5, 2, 3)}}
    for damage in (flip, halve, empty):
        state_files.save_sealed({"batches": 3}, part)
        damage(part)
        assert state_files.load_sealed(part) is None


def test_random_generators_go_on(tmp_path: Path) -> None:
    import numpy as np

    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(())), random.gauss(0, 1)]

    draw()
    state_files.save_states(state_files.random_states(), tmp_path / "random.pt")
    first = draw()
    state_files.restore_random_states(state_files.load_states(tmp_path / "random.pt"))
    assert draw() == first


@pytest.mark.parametrize("steps", [1, 6])
def test_a_run_that_diverges_fails_and_says_so(cli: CommandLine, tmp_path: Path, steps: int) -> None:
    settings = {**SMALL, "training.learning_rate": 1e30, "training.warmup": 0.0, "training.steps": steps}
    settings["training.curriculum"] = "random"
    answer = cli.train("adaptive", tmp_path, settings=settings)
    assert answer.status == 1
    assert [line for line in answer.err.splitlines() if "repro: " in line] == [answer.err.splitlines()[-1]]
    assert "lower training.learning_rate" in answer.err
    assert not list(tmp_path.rglob("result.json"))
    assert "NaN" not in "".join(path.read_text() for path in tmp_path.rglob("*.json*"))


def test_settings_that_cannot_be_saved_are_refused_before_training(cli: CommandLine, tmp_path: Path) -> None:
    settings = {"task.beams": 1, "task.length_penalty": 2.0}
    answer = cli.train("adaptive", tmp_path, task="wmt19", settings=settings)
    assert answer.status == 2
    assert "length_penalty" in answer.err
    assert not list(tmp_path.rglob("steps.jsonl"))


def test_a_finished_run_of_other_code_says_so(cli: CommandLine, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "results")
    path = only_run(tmp_path / "results") / "result.json"
    result = read_object(path)
    result["environment"]["packages"]["torch"] = "1.0.0"
    result["environment"]["git_commit"] = "0123456789abcdef"
    path.write_text(json.dumps(result), encoding="utf-8")
    answer = go_on(cli, tmp_path / "results")
    assert answer.status == 0
    assert "was finished before with other code or libraries (" in answer.err
    assert "torch 1.0.0, here " in answer.err
    assert answer.err.rstrip().endswith("--fresh trains it again")


@pytest.mark.parametrize(
    "what", ["repro.training.checkpoints.save_tensors", "repro.training.loop.append_jsonl"]
)
def test_a_full_disk_is_one_line_and_the_same_command_continues(
    cli: CommandLine, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "file"))

    with monkeypatch.context() as patch:
        patch.setattr(what, refuse)
        answer = go_on(cli, tmp_path)
    assert answer.status == 2
    (line,) = [line for line in answer.err.splitlines() if line.startswith("repro: ")]
    assert line == (
        f"repro: {tmp_path / 'file'}: cannot be written (No space left on device);"
        " make it writable, or make room, and the same command continues"
    )
    assert go_on(cli, tmp_path).status == 0
    assert losses(tmp_path) == losses(whole)


def test_a_results_folder_that_has_gone(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_and_save(*arguments: object) -> None:
        shutil.rmtree(tmp_path / "results")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(tmp_path / "results"))

    monkeypatch.setattr("repro.training.checkpoints.save_tensors", remove_and_save)
    answer = go_on(cli, tmp_path / "results")
    assert answer.status == 2
    assert "results: cannot be written (No such file or directory)" in answer.err
