"""Families and members: names, spellings, hints, and what can be known without importing."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro import plugins
from repro.config import ExpertsConfig
from repro.errors import UserError, unknown

MEMBERS = [(family, name) for family in plugins.FAMILIES for name in plugins.names(family)]


def test_names_are_files_without_the_contract() -> None:
    assert {"adaptive", "dense", "top_k"} <= set(plugins.names("gates"))
    assert {"grouped", "loop", "padded"} <= set(plugins.names("experts"))
    assert {"bert", "gpt2", "bart", "fsmt"} <= set(plugins.names("backbones"))
    assert {"sst2", "squad", "wmt19", "cnn_dailymail", "wikitext", "soda"} <= set(plugins.names("tasks"))
    assert plugins.names("gates") == sorted(plugins.names("gates"))
    assert not [name for _, name in MEMBERS if name in ("__init__", "base", "shared")]


@pytest.mark.parametrize(
    ("name", "resolved"),
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
def test_resolve(name: str, resolved: tuple[str, dict[str, int]]) -> None:
    assert plugins.resolve("gates", name) == resolved


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("gates", "adaptiv", "unknown gate 'adaptiv'. Did you mean 'adaptive'?"),
        ("gates", "top-two", "unknown gate 'top-two'. Did you mean 'top-"),
        ("gates", "base", "unknown gate 'base'."),
        ("gates", "shared", "unknown gate 'shared'."),
        ("gates", "__init__", "unknown gate '__init__'."),
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
    assert module.__name__ == plugins.module_name(family, name)
    line = plugins.summary(family, name)
    assert module.__doc__ is not None
    assert line == module.__doc__.split("\n")[0]
    assert 10 < len(line) < 110


def test_a_new_file_is_a_new_member(tmp_path: Path) -> None:
    """And a folder, a contract, or no Python is none."""
    package = tmp_path / "repro"
    gates = package / "moe" / "gates"
    (gates / "shared").mkdir(parents=True)
    (package / "__init__.py").touch()
    for module in ("plugins.py", "errors.py"):
        shutil.copy(Path(plugins.__file__).parent / module, package)
    text = '"""A gate from elsewhere.\n\nMore."""\n\nprint("imported")\nADAPTIVE = False\n'
    (gates / "all_in.py").write_text(text, encoding="utf-8")
    for name in ("__init__.py", "base.py", "notes.txt", "shared/helper.py"):
        (gates / name).write_text('"""No member."""\n', encoding="utf-8")
    program = """
from repro import plugins
assert plugins.names("gates") == ["all_in"]
assert plugins.resolve("gates", "all-in") == ("all_in", {})
print(plugins.summary("gates", "all_in"))
assert plugins.load("gates", "all-in").ADAPTIVE is False
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "A gate from elsewhere.\nimported\n"


def test_settings_of_experts_have_the_papers_count() -> None:
    assert dataclasses.asdict(ExpertsConfig()) == {
        "count": 16,
        "init": "random",
        "scale": "none",
        "activation": "model",
        "backend": "auto",
        "every": 1,
        "parallel": None,
    }
