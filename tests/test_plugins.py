"""Families and members: names, spellings, hints, and what can be known without importing."""

import dataclasses
import sys
from pathlib import Path

import pytest

from repro import plugins
from repro.config import ExpertsConfig
from repro.errors import UserError, unknown

FAMILIES = ("gates", "experts", "backbones", "corpora", "metrics", "tasks")
MEMBERS = [(family, name) for family in FAMILIES for name in plugins.names(family)]


def test_names_are_files_without_private_ones() -> None:
    assert {"adaptive", "dense", "top_k"} <= set(plugins.names("gates"))
    assert {"grouped", "loop", "padded"} <= set(plugins.names("experts"))
    assert {"bert", "gpt2", "bart", "fsmt"} <= set(plugins.names("backbones"))
    assert {"sst2", "squad", "wmt19", "cnn_dailymail", "wikitext", "soda"} <= set(plugins.names("tasks"))
    assert plugins.names("gates") == sorted(plugins.names("gates"))
    assert not [name for _, name in MEMBERS if name.startswith("_")]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("adaptive", ("adaptive", {})),
        ("dense", ("dense", {})),
        ("top-k", ("top_k", {})),
        ("top_k", ("top_k", {})),
        ("top-1", ("top_k", {"k": 1})),
        ("top_2", ("top_k", {"k": 2})),
        ("top-12", ("top_k", {"k": 12})),
        ("top-p", ("top_p", {})),
        ("top-any", ("top_any", {})),
        ("adaptive-k", ("adaptive_k", {})),
        ("adaptive-3", ("adaptive_k", {"k": 3})),
    ],
)
def test_resolve(name: str, found: tuple[str, dict[str, int]]) -> None:
    assert plugins.resolve("gates", name) == found


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("gates", "adaptiv", "unknown gate 'adaptiv'. Did you mean 'adaptive'?"),
        ("gates", "top-two", "unknown gate 'top-two'. Did you mean 'top-"),
        ("gates", "_softmax", "unknown gate '_softmax'."),
        ("gates", "../gates/dense", "unknown gate '../gates/dense'."),
        ("gates", "", "unknown gate ''. Known: "),
        ("experts", "lop", "unknown experts back-end 'lop'. Did you mean 'loop'? Known: "),
        ("experts", "loop-2", "unknown experts back-end 'loop-2'. Did you mean 'loop'? Known: "),
        ("tasks", "sst-2", "unknown task 'sst-2'. Did you mean 'sst2'? Known: "),
        ("backbones", "brt", "unknown backbone 'brt'. Did you mean 'bert'? Known: "),
        ("metrics", "acuracy", "unknown metric 'acuracy'. Did you mean 'accuracy'? Known: "),
        ("corpora", "sentimnt", "unknown corpus 'sentimnt'. Did you mean 'sentiment'? Known: "),
    ],
)
def test_unknown_names(family: str, name: str, message: str) -> None:
    for call in (plugins.resolve, plugins.load):
        with pytest.raises(UserError) as caught:
            call(family, name)
        (line,) = caught.value.problems
        assert line.startswith(message)


def test_where_comes_first() -> None:
    with pytest.raises(UserError, match=r"^--gate: unknown gate 'x'"):
        plugins.resolve("gates", "x", where="--gate: ")


def test_unknown_without_anything_near_or_known() -> None:
    assert unknown("run", "zzz", ["abc", "def"]) == "unknown run 'zzz'. Known: abc, def."
    assert unknown("run", "zzz", []) == "unknown run 'zzz'. Known: none."


@pytest.mark.parametrize(("family", "name"), MEMBERS)
def test_every_member_loads_and_says_what_it_is(family: str, name: str) -> None:
    module = plugins.load(family, name)
    assert module.__name__ == f"repro.{family}.{name}"
    line = plugins.summary(family, name)
    assert module.__doc__ is not None
    assert line == module.__doc__.split("\n")[0]
    assert 10 < len(line) < 110


@pytest.mark.parametrize("name", plugins.names("gates"))
def test_gates_expose_their_contract(name: str) -> None:
    gate = plugins.load("gates", name)
    options = gate.Config()
    assert type(options).__dataclass_params__.frozen
    assert hash(options) == hash(gate.Config())
    assert isinstance(gate.ADAPTIVE, bool)
    assert gate.Gate is None or callable(gate.Gate)
    assert isinstance(getattr(gate, "ENCODERS_ONLY", ""), str)


@pytest.mark.parametrize("name", plugins.names("experts"))
def test_back_ends_expose_their_contract(name: str) -> None:
    import torch

    backend = plugins.load("experts", name)
    assert backend.available(torch.device("cpu")) is None
    assert callable(backend.forward)
    assert callable(backend.rows_computed)


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_constants_of_tasks_are_known_without_importing(name: str) -> None:
    facts, module = plugins.constants("tasks", name), plugins.load("tasks", name)
    for key in ("TITLE", "METRIC", "HUB", "FOLDERS", "CORPUS", "COLUMNS", "BACKBONE", "HEAD"):
        assert facts[key] == getattr(module, key), key
    assert facts["METRIC"] in plugins.names("metrics")
    assert facts["CORPUS"] in plugins.names("corpora")
    assert facts["BACKBONE"] in plugins.names("backbones")


def test_a_new_file_is_a_new_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import repro.gates

    (tmp_path / "gates").mkdir()
    text = '"""A gate from elsewhere.\n\nMore."""\n\nADAPTIVE = False\nLIMITS = (1, 2)\nOTHER = len("x")\n'
    (tmp_path / "gates" / "all_in.py").write_text(text, encoding="utf-8")
    (tmp_path / "gates" / "_helper.py").write_text('"""Private."""\n', encoding="utf-8")
    monkeypatch.setattr(plugins, "_ROOT", tmp_path)
    monkeypatch.setattr(repro.gates, "__path__", [str(tmp_path / "gates")])
    try:
        assert plugins.names("gates") == ["all_in"]
        assert plugins.resolve("gates", "all-in") == ("all_in", {})
        assert plugins.summary("gates", "all_in") == "A gate from elsewhere."
        assert plugins.constants("gates", "all_in") == {"ADAPTIVE": False, "LIMITS": (1, 2)}
        assert "repro.gates.all_in" not in sys.modules
        assert plugins.load("gates", "all-in").ADAPTIVE is False
    finally:
        sys.modules.pop("repro.gates.all_in", None)
        vars(repro.gates).pop("all_in", None)


def test_settings_of_experts_have_the_papers_count() -> None:
    assert dataclasses.asdict(ExpertsConfig()) == {
        "count": 16,
        "init": "random",
        "activation": "model",
        "backend": "auto",
        "every": 1,
    }
