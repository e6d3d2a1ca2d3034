"""A study on lanes whose processes are killed: what was lost, what was printed, and how it goes on."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SMALL, CommandLine, read_lines, read_object, timeless
from nursery import Started

SETTINGS = SMALL | {"training.steps": 20, "training.curriculum": "random"}
PHASES = {
    "training": {},
    "evaluating": {"evaluation.points": 20, "data.dev_samples": 96, "evaluation.batch_size": 8},
    "saving": {"training.checkpoint_every": 1},
}
"""What a run does most of its time, and the settings that see to it."""
WHO = ("parent", "worker", "forkserver")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SAME = ("metric", "metrics", "metric_top1", "eval_loss", "dev_loss", "routing", "flops", "steps", "tokens")


def command(results: Path, phase: str) -> list[object]:
    settings = [
        word for key, value in (SETTINGS | PHASES[phase]).items() for word in ("--set", f"{key}={value}")
    ]
    study = ["ablate", "schemes", "--tasks", "sst2", "--variants", "top-2,top-1", "--lanes", 2]
    return [*study, *settings, "--out", results]


def outcome(results: Path) -> dict[str, object]:
    """What each run left, without times."""
    return {
        folder.name: (
            [timeless(row) for row in read_lines(folder / "steps.jsonl")],
            [timeless(row) for row in read_lines(folder / "evals.jsonl")],
            {key: read_object(folder / "result.json")[key] for key in SAME},
        )
        for folder in sorted(results.glob("mini/runs/sst2-*"))
    }


@pytest.fixture(scope="module")
def references(
    cli: CommandLine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, object]]]:
    """Outcomes of undisturbed studies, each made when it is first asked for."""

    class References(dict[str, dict[str, object]]):
        def __missing__(self, phase: str) -> dict[str, object]:
            results = tmp_path_factory.mktemp(phase)
            answer = cli(*command(results, phase))
            assert answer.status == 0, answer.err
            self[phase] = outcome(results)
            assert len(self[phase]) == 2
            return self[phase]

    yield References()


# --- processes ------------------------------------------------------------------------------------


def processes() -> dict[int, tuple[int, str]]:
    """Process -> its parent and its command line; without those that have ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if entry.name.isdigit() and state not in "ZX":
                found[int(entry.name)] = int(parent), (entry / "cmdline").read_text()
        except (OSError, ValueError):
            continue
    return found


def children(of: int) -> dict[int, str]:
    return {process: line for process, (parent, line) in processes().items() if parent == of}


def workers(parent: int) -> tuple[int, list[int]]:
    """The fork server of a study, and the processes of its runs."""
    (server,) = (process for process, line in children(parent).items() if "forkserver" in line)
    return server, sorted(children(server))


def until(condition: object, seconds: float = 60) -> None:
    """Wait for a condition."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def strike(
    cli: CommandLine, results: Path, who: str, number: signal.Signals, phase: str
) -> tuple[Started, str, str]:
    """Start a study, send a signal in the middle of it, and wait for its end and that of its runs."""
    process = cli.start(*command(results, phase))
    try:
        until(lambda: len(list(results.glob("mini/runs/*/evals.jsonl"))) == 2 or process.poll() is not None)
        folders = sorted(results.glob("mini/runs/sst2-*"))
        until(lambda: all(len(read_lines(folder / "steps.jsonl")) >= 3 for folder in folders))
        server, running = workers(process.pid)
        assert len(running) == 2
        os.kill({"parent": process.pid, "worker": running[0], "forkserver": server}[who], number)
        out, err = process.communicate(timeout=120)
        until(lambda: not set(running) & set(processes()))
    finally:
        process.kill()
        process.communicate()
    return process, out, err


def check(
    cli: CommandLine,
    references: dict[str, dict[str, object]],
    results: Path,
    who: str,
    number: signal.Signals,
    phase: str,
) -> None:
    process, out, err = strike(cli, results, who, number, phase)
    assert "Traceback" not in err
    if who == "parent" and number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    elif who == "parent":
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[-1] == "repro: stopped, 2 runs saved; the same command continues"
    elif who == "worker" and number == signal.SIGKILL:
        assert process.returncode == 1
        assert "its process was killed, as the system does when memory runs out" in err.splitlines()[-1]
        assert len(list(results.glob("mini/runs/*/result.json"))) == 1
    else:  # a run goes on without its fork server; signals for a whole group are for the parent
        assert process.returncode == 0, err
    again = cli(*command(results, phase))
    assert again.status == 0, again.err
    assert outcome(results) == references[phase]


@pytest.mark.parametrize(
    ("who", "number", "phase"),
    [
        ("parent", signal.SIGKILL, "training"),
        ("worker", signal.SIGKILL, "evaluating"),
    ],
)
def test_some_signals(
    cli: CommandLine,
    references: dict[str, dict[str, object]],
    tmp_path: Path,
    who: str,
    number: signal.Signals,
    phase: str,
) -> None:
    check(cli, references, tmp_path, who, number, phase)


@pytest.mark.torture
@pytest.mark.parametrize(("who", "number", "phase"), list(itertools.product(WHO, SIGNALS, PHASES)))
def test_all_signals(
    cli: CommandLine,
    references: dict[str, dict[str, object]],
    tmp_path: Path,
    who: str,
    number: signal.Signals,
    phase: str,
) -> None:
    check(cli, references, tmp_path, who, number, phase)


def test_ctrl_c_twice(cli: CommandLine, tmp_path: Path) -> None:
    """The second does not wait for checkpoints; nobody stays behind. All processes begin as a user's do."""
    process = cli.start_fresh(*command(tmp_path, "evaluating"))
    try:
        until(lambda: len(list(tmp_path.glob("mini/runs/*/evals.jsonl"))) == 2)
        _, running = workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        until(lambda: not set(running) & set(processes()))
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] in (
        "repro: interrupted",
        "repro: stopped, 2 runs saved; the same command continues",
    )


def test_two_commands_share_the_work(
    cli: CommandLine, references: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """The second leaves what the first does to it, waits, and shows the same table."""
    study = [*command(tmp_path, "training"), "--seeds", 2]
    first, second = cli.start(*study), cli.start(*study)
    try:
        answers = [process.communicate(timeout=120) for process in (first, second)]
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert (first.returncode, second.returncode) == (0, 0), answers
    assert answers[0][0] == answers[1][0]
    assert len(list(tmp_path.glob("mini/runs/*/result.json"))) == 4
    seed_0 = {name: runs for name, runs in outcome(tmp_path).items() if "-s0-" in name}
    assert seed_0 == references["training"]
