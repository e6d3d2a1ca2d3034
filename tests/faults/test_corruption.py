"""Every file that the program leaves, damaged in many ways, and then every command that reads it.

A command may end in two ways: with status 0 and the same answer as over whole files, or with status 2 and one
line for each problem. What was measured is never lost and never replaced by something else.

A flip within the text of a JSON file of results may give another valid value, a digit of a loss. Nothing can
tell it from the one that was measured, so only the form of the answer is checked then (`unseen`). Models and
checkpoints have digests: nothing in them passes unseen. Pages of heat maps and pictures in pixels are read by
no command, so they are not damaged here.
"""

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, Answer, CommandLine, only_run
from factories import make_case
from rows_by_hand import write_splits
from stopped import stop_after

from repro.results.bench import Bench
from repro.results.files import write_json

LONG = SMALL | {"training.steps": 8, "training.checkpoint_every": 2}
"""Settings of the run that is stopped in the middle."""
STOPPED_READERS = {"*": "list continue"}
FINISHED_READERS = {
    "runs/*/model/*": "eval analyze",
    "runs/*/config.json": "list eval analyze plan train",
    "runs/*/result.json": "list eval analyze plan report train",
    "runs/*/places.json": "eval train",
    "runs/*/routing.jsonl": "analyze train",
    "runs/*/*": "list train",
    "runs.jsonl": "report analyze ablate",
    "studies/*": "report ablate",
    "analysis/*.json": "report analyze",
    "bench.json": "report",
}
"""Files below `<results>/mini/`, and the commands that read them; the first pattern that fits counts."""
MEASURED = ("runs/*/result.json", "runs.jsonl", "studies/*.json", "analysis/*.json", "bench.json")
TABLES = ("*.csv", "report.*", "figures/*.svg")
"""What `repro report` makes again from these."""
PARTS = 12
"""Of all cases, so that processes can share them."""
TIMES = {
    *("about s", "about GB", "load_average", "peak_memory_bytes", "seconds_per_step", "stolen_share"),
    *("seconds_per_step_by_epoch", "tokens_per_second", "train s", "train_seconds"),
    *("files", "git_commit", "git_modified"),
}
"""What differs between two answers with the same numbers: times, places, a commit made meanwhile."""


@dataclass
class Left:
    """A results folder that the program left, the commands that read it, and their answers before damage."""

    results: Path
    commands: Mapping[str, Sequence[object]]
    """Name -> arguments; `--out` is added."""
    readers: Mapping[str, str]
    answers: dict[str, object] = field(default_factory=dict)

    def files(self, patterns: Sequence[str] = ("*", "*/*", "*/*/*", "*/*/*/*", "*/*/*/*/*")) -> list[str]:
        """Files that fit a pattern, below the folder of the scale."""
        scale = self.results / "mini"
        paths = sorted({path for pattern in patterns for path in scale.glob(pattern) if path.is_file()})
        return [str(path.relative_to(scale)) for path in paths if path.name != ".lock"]

    def readers_of(self, name: str) -> list[str]:
        """Commands that read a file."""
        fitting = (names for pattern, names in self.readers.items() if Path(name).match(pattern))
        return next(fitting, "").split()


@dataclass(frozen=True)
class Case:
    """A damaged file."""

    left: Left
    name: str
    damage: str
    seed: int


@pytest.fixture(scope="module")
def finished(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A finished study of one run, on data of a folder, with everything that can be made of it."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_splits(folder / "data", "sst2", train=64, validation=32, test=16)
    results = folder / "results"
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    study = ["schemes", "--tasks", "sst2", "--variants", "adaptive", "--data", data, *settings]
    ablate = ("ablate", *study, "--json")
    answers = {"ablate": told(cli(*ablate, "--out", results), results)}
    write_json(results / "mini" / "bench.json", Bench(cases=[make_case()]).to_json())
    run = only_run(results).name
    analyze = ("analyze", run, "--json")
    answers["analyze"] = told(cli(*analyze, "--out", results), results)
    train = cli.train_arguments("adaptive", results, "--data", data)
    commands: dict[str, Sequence[object]] = {
        "list": ("list", "runs", "--json"),
        "report": ("report",),
        "eval": ("eval", run, "--json"),
        "analyze": analyze,
        "plan": ("ablate", *study, "--dry-run", "--json"),
        "ablate": ablate,
        "train": (*train, "--json"),
    }
    return Left(results, commands, FINISHED_READERS, answers)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A run that was stopped after step 5: checkpoints at 4 and 5."""
    results = tmp_path_factory.mktemp("stopped")
    stop_after(LONG, results, 5)
    train = CommandLine.train_arguments("adaptive", results, settings=LONG)
    commands = {"list": ("list", "runs", "--json"), "continue": (*train, "--json")}
    return Left(results, commands, STOPPED_READERS)


# --- damages --------------------------------------------------------------------------------------


def flipped(path: Path, generator: random.Random, other: bytes) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def replaced_by_folder(path: Path, generator: random.Random, other: bytes) -> None:
    path.unlink()
    path.mkdir()


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path, random.Random, bytes], object]:
    return lambda path, generator, other: path.write_bytes(change(path.read_bytes()))


DAMAGES: dict[str, Callable[[Path, random.Random, bytes], object]] = {
    "empty": rewritten(lambda content: b""),
    "first half": rewritten(lambda content: content[: len(content) // 2]),
    "without its last byte": rewritten(lambda content: content[:-1]),
    "without its last line": rewritten(lambda content: b"".join(content.splitlines(keepends=True)[:-1])),
    "doubled": rewritten(lambda content: 2 * content),
    "an object": rewritten(lambda content: b"{}\n"),
    "an array": rewritten(lambda content: b"[]\n"),
    "null": rewritten(lambda content: b"null\n"),
    "a merge conflict": rewritten(
        lambda content: b"<<<<<<< ours\n" + content + b"=======\n" + content + b">>>>>>> theirs\n"
    ),
    "another file": lambda path, generator, other: path.write_bytes(other),
    "noise": lambda path, generator, other: path.write_bytes(generator.randbytes(300)),
    "gone": lambda path, generator, other: path.unlink(),
    "a folder": replaced_by_folder,
    "flipped": flipped,
}


# --- answers --------------------------------------------------------------------------------------


def values(content: bytes) -> list[Any] | None:
    """The JSON values of a file, one or one a line; None if it is no JSON."""
    try:
        return [json.loads(content)]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return None


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key not in TIMES}
        if "curve" in kept:
            kept["curve"] = [[step, loss] for step, _, loss in kept["curve"]]
        return {key: without_times(part) for key, part in kept.items()}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def ask(cli: CommandLine, left: Left, command: str, results: Path) -> Answer:
    return cli(*left.commands[command], "--out", results)


def told(answer: Answer, results: Path) -> object:
    """What a command answered, as far as it does not depend on times and places."""
    assert answer.status == 0, answer.err
    if answer.out.startswith("{"):
        return without_times(json.loads(answer.out))
    return answer.out.replace(str(results), "")


def expected(cli: CommandLine, left: Left, command: str, folder: Path) -> object:
    """The answer of a command over whole files."""
    if command not in left.answers:
        shutil.copytree(left.results, folder / "whole")
        left.answers[command] = told(ask(cli, left, command, folder / "whole"), folder / "whole")
        shutil.rmtree(folder / "whole")
    return left.answers[command]


def contents(results: Path, names: Sequence[str]) -> dict[str, bytes | None]:
    paths = {name: results / "mini" / name for name in names}
    return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}


def is_measured(now: bytes | None, whole: bytes) -> bool:
    """Whether a file holds what was measured, perhaps in other times."""
    return now is not None and without_times(values(now)) == without_times(values(whole))


def is_one_line_each(answer: Answer) -> bool:
    """Whether a refusal is as it should be; `[1/2] RUN` says how far the work had come."""
    lines = [line for line in answer.err.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    return bool(lines) and all(line.startswith("repro: ") and len(line) <= 2000 for line in lines)


def unseen(case: Case, damaged: bytes | None) -> bool:
    """Whether a file of results may hold another valid value."""
    protected = "/model/" in case.name or "/checkpoint/" in case.name
    return case.damage == "flipped" and not protected and damaged is not None and values(damaged) is not None


def shows_gap(case: Case, command: str) -> bool:
    """Whether a command is to show that something was not measured: a run is not finished, a table empty."""
    gone = case.damage == "gone" and case.name in case.left.files(MEASURED)
    return gone and command in ("list", "plan", "report")


def problems(cli: CommandLine, case: Case, folder: Path, other: bytes) -> list[str]:
    """Damage a file of a copy, run what reads it, and say what was not as it should be."""
    left, results = case.left, folder / "results"
    shutil.copytree(left.results, results)
    path = results / "mini" / case.name
    DAMAGES[case.damage](path, random.Random(case.seed), other)
    measured = left.files(MEASURED)
    whole = contents(left.results, measured)
    before = contents(results, measured)
    hidden = unseen(case, path.read_bytes() if path.is_file() else None)
    found = []
    for command in left.readers_of(case.name):
        where = f"{case.name} {case.damage} {case.seed}, {command}: "
        try:
            answer = ask(cli, left, command, results)
        except Exception as error:  # a user would see a traceback
            found.append(f"{where}{error!r}"[:300])
            continue
        if answer.status == 2:
            if not is_one_line_each(answer):
                found.append(f"{where}refused with {answer.err[:500]!r}")
        elif answer.status:
            found.append(f"{where}status {answer.status}, {answer.err[-500:]!r}")
        elif (
            not hidden
            and not shows_gap(case, command)
            and told(answer, results) != expected(cli, left, command, folder)
        ):
            found.append(f"{where}another answer")
        for name, now in contents(results, measured).items():
            same = now == before[name] or is_measured(now, whole[name] or b"")
            if not same and not (hidden and now is not None and values(now) is not None):
                found.append(f"{where}{name} is lost")
    shutil.rmtree(results)
    return found


def cases(lefts: Sequence[Left], flips: int) -> list[Case]:
    """Every damage of every file that a command reads, and several flips."""
    return [
        Case(left, name, damage, seed)
        for left in lefts
        for name in left.files()
        if left.readers_of(name)
        for damage in DAMAGES
        for seed in range(flips if damage == "flipped" else 1)
    ]


def check(cli: CommandLine, chosen: Sequence[Case], folder: Path) -> None:
    """Check cases; the other file of one is drawn from all files."""
    found = []
    for case in chosen:
        generator = random.Random(f"{case.name}{case.seed}")
        others = [case.left.results / "mini" / name for name in case.left.files() if name != case.name]
        alike = [path for path in others if path.suffix == Path(case.name).suffix]
        found += problems(cli, case, folder, generator.choice(alike or others).read_bytes())
    assert not found, f"{len(found)} of {len(chosen)} cases:\n" + "\n".join(found)


def test_some_damages(cli: CommandLine, finished: Left, stopped: Left, tmp_path: Path) -> None:
    check(cli, random.Random(19).sample(cases([finished, stopped], flips=3), 30), tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("part", range(PARTS))
def test_all_damages(cli: CommandLine, finished: Left, stopped: Left, tmp_path: Path, part: int) -> None:
    check(cli, cases([finished, stopped], flips=30)[part::PARTS], tmp_path)


def test_tables_are_made_again(cli: CommandLine, finished: Left, tmp_path: Path) -> None:
    """All at once, for making them takes a second."""
    results = tmp_path / "results"
    shutil.copytree(finished.results, results)
    names = finished.files(TABLES)
    assert len(names) > 10
    generator = random.Random(0)
    damages = ("empty", "noise", "gone", "flipped", "first half", "another file")
    for number, name in enumerate(names):
        DAMAGES[damages[number % len(damages)]](results / "mini" / name, generator, b"other")
    assert cli("report", "--out", results).status == 0
    assert contents(results, names) == contents(finished.results, names)
