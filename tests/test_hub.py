"""Models of the hub by name: what a run takes from their configuration, before any weights are there."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from checkpoints import put_into_cache, write_relative
from command_line import CommandLine, only_run, read_object, without_model
from refusals import refused
from resolved import problems, resolved

from repro.config import RunConfig
from repro.results.files import RunPaths
from repro.run.blueprint import blueprint, planned_options

NAME = "some/mixtral"
SIZES = {"num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's cache, empty; there is no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def cached(cache: Path, tmp_path: Path) -> Callable[..., None]:
    """`cached(only=...)`: a tiny Mixtral of 4 experts is in the cache, or the files named so are."""

    def put(only: str = "*") -> None:
        folder = write_relative(tmp_path / "model", "mixtral", **SIZES)
        for path in folder.iterdir():
            if not path.match(only):
                path.unlink()
        put_into_cache(folder, NAME, cache)

    return put


def run_on(model: str, **overrides: object) -> tuple[RunConfig, RunPaths]:
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolved("adaptive", task="arc", model=model, overrides={"model.backbone": "mixtral", **settings})


def test_experts_and_weights_are_those_of_the_model(cached: Callable[..., None]) -> None:
    """Its configuration is enough: as of a folder."""
    cached("config.json")
    run, paths = run_on(NAME)
    assert (run.model.checkpoint, paths.model) == (NAME, None)
    assert (run.experts.count, run.experts.init, run.experts.scale) == (4, "random", "none")
    assert run.gate_options.combine == "renormalised"
    assert run_on(NAME, gate__combine="raw")[0].gate_options.combine == "raw"
    assert run_on(NAME, experts__count=8)[0].experts.count == 8  # refused by `convert`


def test_memory_is_planned_by_the_configuration_alone(cached: Callable[..., None]) -> None:
    cached("config.json")
    run, paths = run_on(NAME)
    plan = blueprint(run, planned_options(run, paths))
    assert plan.experts == 2 * 4 * 3 * 16 * 24


def test_a_run_by_name_is_that_of_the_folder(
    cli: CommandLine, cached: Callable[..., None], tmp_path: Path
) -> None:
    cached()
    losses = []
    for place, model in (("a", tmp_path / "model"), ("b", NAME)):
        own = {**without_model("arc"), "model.backbone": "mixtral", "experts.count": None}
        answer = cli.train("adaptive", tmp_path / place, "--model", model, task="arc", settings=own)
        assert answer.status == 0, answer.err
        losses.append(read_object(only_run(tmp_path / place) / "result.json")["eval_loss"])
    assert losses[0] == losses[1]


def test_without_a_network(cli: CommandLine, cache: Path, tmp_path: Path) -> None:
    """One line; families without MoE blocks are not looked up until they are loaded."""
    (line,) = problems(run_on, NAME)
    assert line.startswith(f"--model {NAME}: no such folder, not in the cache of the hub ({cache})")
    settings = {**without_model("arc"), "model.backbone": "mixtral", "experts.count": None}
    answer = cli.train("adaptive", tmp_path / "out", "--model", NAME, task="arc", settings=settings)
    refused(answer, rf"--model {NAME}: .*the hub cannot be reached; give a folder with --model DIR")
    assert not (tmp_path / "out").exists()
    assert resolved("adaptive", model="some/bert")[0].model.checkpoint == "some/bert"


def test_what_a_scale_names_is_not_looked_up(cache: Path) -> None:
    run, _ = resolved("top-2", task="sst2", scale="paper")
    assert run.model.checkpoint is not None
    assert planned_options(run, None)
