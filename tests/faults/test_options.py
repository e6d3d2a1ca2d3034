"""Options that mean nothing, or too much: refused in a line each, before anything is trained or written."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from command_line import SMALL_BY_TASK, Answer, CommandLine
from resolved import resolved

from repro import plugins
from repro.config import RunConfig
from repro.moe.backbones import base as backbones
from repro.results.files import RunPaths
from repro.run.accelerator import make_accelerator
from repro.run.setup import prepare

# --- random options -----------------------------------------------------------------------------

MILD = [
    "0",
    "1",
    "2",
    "3",
    "8",
    "1000",
    "0.0",
    "0.5",
    "1.0",
    "1e-5",
    "true",
    "false",
    "none",
    "relu",
    "gelu_new",
]
NASTY = [
    *(
        "-1",
        "-0.0",
        "1e-400",
        "1e308",
        "nan",
        "-inf",
        "inf",
        "1_000",
        "0x10",
        "0b11",
        str(2**31),
        str(2**32),
        str(2**63),
        str(10**30),
        "9" * 5000,
        "1e1000000",
    ),
    *("", " ", "''", '""', "none", "null", "true", "false", "True", "yes", "=", "==", "# x", "1 # x"),
    *("[]", "[1]", "[1, 'a']", "[[1]]", "[nan]", "[1.5, 2]", "[true]", "['de', 'en']", "[1", "[" * 3000),
    *("{}", "{a = 1}", "{a = 1979-05-27}", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z"),
    *("relu", "gelu", "swash", "bert", "gpt2", "dense", "hub", "synthetic", "folder:0123456789abcdef"),
    *(
        "'a'",
        '"a"',
        "a\nb = 2",
        "1\nb = 2",
        "\t",
        "\r",
        "\x1b[31m",
        "\x7f",
        "\u202e",
        "ä",
        "日本",
        "\U0001f600",
    ),
    *(
        "../..",
        "/",
        "/dev/null",
        "~",
        "a" * 300,
        "a/" * 3000,
        "[v2]",
        "[/]",
        ":x:",
        "%s%n",
        "{0}",
        "\\",
        "\\x00",
    ),
    *("\0", "\ud800", "$(id)", "`id`", "-", "--", "--help", "-1e5", "1,2", "0.1,nan", "top-2,adaptive"),
]
GATES = [
    "dense",
    "top-1",
    "top-2",
    "top-0",
    "top-k",
    "top-" + "9" * 5000,
    "adaptive",
    "adamoe",
    "hash",
    "relu",
]
OPTIONS = {
    "train": [
        "--threshold",
        "--seed",
        "--steps",
        "--epochs",
        "--curriculum",
        "--precision",
        "--experts-backend",
    ],
    "ablate": [
        *("--seeds", "--values", "--variants", "--turns", "--lanes", "--threads", "--at-once"),
        *("--launcher", "--jobs", "--partition", "--gpus", "--memory", "--time"),
    ],
    "both": ["--task", "--scale", "--data", "--model", "--out"],
}
FOREIGN = [
    "num_labels",
    "id2label",
    "return_dict",
    "dtype",
    "problem_type",
    "chunk_size_feed_forward",
    "is_decoder",
]


def keys_of(task: str) -> list[str]:
    """The keys that `--set` has for a task, some that it has not, and some that the library knows."""
    config, _ = resolved(task=task)
    sections = {name.removesuffix("_options"): part for name, part in config.to_dict().items()}
    own = [f"{name}.{key}" for name, part in sections.items() if isinstance(part, dict) for key in part]
    library = [*backbones.load(config.model.backbone).CONFIG().to_dict(), *FOREIGN]
    return [
        *own,
        *(f"model.config.{name}" for name in library),
        "",
        "model",
        "gate.",
        "a.b.c",
        "ä",
        "x" * 5000,
    ]


def random_arguments(chance: random.Random, keys: dict[str, list[str]], scratch: Path) -> list[str]:
    """A command with some of its options, and settings of a small run with some of them replaced."""
    task = chance.choice(list(keys))
    train = chance.random() < 0.75
    settings = {key: str(value) for key, value in SMALL_BY_TASK[task].items()}
    for key in chance.sample(keys[task], chance.choice((0, 1, 1, 1, 2, 3))):
        settings[key] = chance.choice(MILD if chance.random() < 0.5 else NASTY)
    options = OPTIONS["both"] + OPTIONS["train" if train else "ablate"]
    chosen = {name: chance.choice(NASTY) for name in chance.sample(options, chance.choice((0, 0, 0, 1, 2)))}
    if train:
        gate = chance.choice(GATES)
        chosen = {"--task": task, "--gate": gate, "--out": str(scratch / "results"), **chosen}
        settings = {key: value for key, value in settings.items() if gate != "dense" or "experts." not in key}
        arguments = ["train"]
    else:
        chosen["--tasks"] = chosen.pop("--task", task)
        chosen = {"--out": str(scratch / "results"), **chosen}
        arguments = ["ablate", chance.choice(("schemes", "threshold", "curriculum", "gates")), "--dry-run"]
    words = [word for name, value in chosen.items() for word in (name, value)]
    return [
        *arguments,
        *words,
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
    ]


def only_prepare(config: RunConfig, paths: RunPaths, **_: object) -> NoReturn:
    """Make data and model ready, and end the command where a run would be trained."""
    prepare(config, paths, make_accelerator(config, paths.model).device)
    raise SystemExit(0)


def assert_answered(answer: Answer, arguments: list[str]) -> None:
    """Done, or refused in a few lines."""
    lines = answer.err.splitlines()
    assert answer.status in (0, 2), (arguments, answer)
    assert "Traceback" not in answer.err, (arguments, answer.err)
    assert len(lines) <= 20, (arguments, answer.err)
    assert all(len(line) < 2000 for line in lines), (arguments, answer.err)
    if answer.status == 2:
        assert lines, arguments
        assert all(line.startswith("repro: ") for line in lines), (arguments, answer.err)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Commands that end before training, in a folder of their own."""
    monkeypatch.setattr("repro.cli.runs.execute", only_prepare)
    monkeypatch.setattr("repro.cli.studies.matmul_speed", lambda device: 1e9)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture(scope="module")
def keys() -> dict[str, list[str]]:
    """Task -> keys."""
    return {task: keys_of(task) for task in plugins.names("tasks")}


def try_random(cli: CommandLine, keys: dict[str, list[str]], scratch: Path, seed: int, cases: int) -> None:
    chance = random.Random(seed)
    for _ in range(cases):
        arguments = random_arguments(chance, keys, scratch)
        assert_answered(cli(*arguments), arguments)
        assert not (scratch / "results").exists(), arguments


@pytest.mark.parametrize("seed", range(10))
def test_random_options(cli: CommandLine, keys: dict[str, list[str]], untrained: Path, seed: int) -> None:
    try_random(cli, keys, untrained, seed, 15)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 150))
def test_many_random_options(
    cli: CommandLine, keys: dict[str, list[str]], untrained: Path, seed: int
) -> None:
    try_random(cli, keys, untrained, seed, 100)


@pytest.mark.parametrize("options", [["--values", "a" * 6000], ["--set", f"training.steps={'a' * 6000}"]])
def test_a_value_that_is_too_long_for_a_line(cli: CommandLine, untrained: Path, options: list[str]) -> None:
    answer = cli("ablate", "threshold", "--dry-run", *options)
    (line,) = answer.err.splitlines()
    assert answer.status == 2
    assert line.startswith(f"repro: {options[0]}")
    assert len(line) < 2000
