"""Runs that are killed at file operations, once or several times, end as if nothing had happened.

Each run has a process of its own, forked from one that has imported everything. An audit hook counts what
it does to files of its folder, and kills it at a chosen one.
"""

import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from command_line import SMALL, only_run, read_lines, read_object, timeless
from resolved import resolved

import repro.study.lanes  # noqa: F401  its fork server has imported everything
from repro.run.execute import execute

CONTEXT = multiprocessing.get_context("forkserver")
SETTINGS = SMALL | {
    "training.steps": 6,
    "training.checkpoint_every": 2,
    "training.curriculum": "cosine",
}
OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
SAME = ("metric", "metrics", "metric_top1", "eval_loss", "routing", "flops", "steps", "tokens", "curriculum")


def watch(results: Path, kill_at: int | None) -> list[int]:
    """Count changes of files below a folder; at the one asked for this process dies."""
    count = [0]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in OPERATIONS or not arguments or str(results) not in str(arguments[0]):
            return
        if event == "open" and (len(arguments) < 3 or not isinstance(arguments[2], int)):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        count[0] += 1
        if count[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def work(results: Path, kill_at: int | None, answers: "multiprocessing.queues.Queue[int]") -> None:
    """Do the run, or a part of it."""
    config, paths = resolved("adaptive", overrides=SETTINGS, results=results)
    count = watch(results, kill_at)
    execute(config, paths, report=lambda progress: None, should_stop=bool)
    answers.put(count[0])


def run(results: Path, kill_at: int | None) -> tuple[int, int]:
    """Exit status of the process, and the operations it did if it came to the end."""
    answers = CONTEXT.Queue()
    process = CONTEXT.Process(target=work, args=(results, kill_at, answers))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, answers.get() if process.exitcode == 0 else 0


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Results of the run without a kill, and how many operations it took."""
    results = tmp_path_factory.mktemp("reference")
    status, operations = run(results, None)
    assert status == 0
    assert operations > 50  # steps, evaluations, checkpoints, model, result
    return results, operations


def outcome(results: Path) -> list[object]:
    """Everything that a run leaves, without times."""
    folder = only_run(results)
    records = [
        [timeless(row) for row in read_lines(folder / name)]
        for name in ("steps.jsonl", "evals.jsonl", "routing.jsonl")
    ]
    result = read_object(folder / "result.json")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")
    weights = (folder / "model" / "model.safetensors").read_bytes()
    return [records, {key: result[key] for key in SAME}, files, weights]


def survive(results: Path, kills: list[int]) -> int:
    """Kill at each of these operations, one life after the other, and then let it end."""
    killed = 0
    for kill_at in kills:
        status, _ = run(results, kill_at)
        assert status in (0, -signal.SIGKILL)
        killed += status != 0
    status, _ = run(results, None)
    assert status == 0
    return killed


def moments(operations: int, cases: int, seed: int) -> list[list[int]]:
    """One to three kills each, anywhere; the first cases spread evenly over the run."""
    generator = random.Random(seed)
    spread = [1 + place * operations // max(1, cases // 2) for place in range(cases // 2)]
    return [
        [first, *(generator.randrange(1, operations) for _ in range(generator.randrange(3)))]
        for first in [*spread, *(generator.randrange(1, operations) for _ in range(cases - len(spread)))]
    ]


def check(reference: tuple[Path, int], tmp_path: Path, cases: int) -> None:
    whole, operations = reference
    expected = outcome(whole)
    killed = 0
    for number, kills in enumerate(moments(operations, cases, seed=7)):
        results = tmp_path / str(number)
        results.mkdir()
        killed += survive(results, kills)
        assert outcome(results) == expected, kills
    assert killed >= cases


def test_killed_at_a_few_moments(reference: tuple[Path, int], tmp_path: Path) -> None:
    check(reference, tmp_path, cases=4)


@pytest.mark.torture
def test_killed_at_a_hundred_moments(reference: tuple[Path, int], tmp_path: Path) -> None:
    check(reference, tmp_path, cases=100)
