"""Studies as files: what their tables mean, and a line for whatever is wrong with one."""

from pathlib import Path

import pytest
from planned import copy_studies, planned

from repro import plugins
from repro.errors import UserError
from repro.study.definition import load_study, resolve_study, study_names


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the studies' files, which a test may change."""
    return copy_studies(tmp_path, monkeypatch)


@pytest.mark.parametrize("study", study_names())
def test_every_study_compares_gates_that_there_are(study: str) -> None:
    definition = load_study(study)
    assert definition.title.endswith(".")
    assert len(definition.variants) > 1
    for variant in definition.variants.values():
        assert plugins.resolve("gates", variant.gate)


def test_settings_are_dotted_keys() -> None:
    variants = load_study("threshold").variants
    assert variants["top-2"].settings == {}
    values = {label: variant.settings for label, variant in variants.items() if label != "top-2"}
    assert values == {label: {"gate.threshold": float(label)} for label in values}


def test_a_recipe_adds_that_of_the_variant_to_that_of_all() -> None:
    study = load_study("adamoe")
    both = {"training.epochs": 1, "training.curriculum": "random"}
    assert study.recipe_of("plain") == both
    assert study.recipe_of("adamoe") == both | {"gate.k": 3, "gate.nulls": 16}


def test_a_file_is_a_study(tmp_path: Path, studies: Path) -> None:
    """Under its name, in which `-` and `_` are the same."""
    (studies / "schemes.toml").rename(studies / "my_own.toml")
    assert "my_own" in study_names()
    assert resolve_study("my-own") == resolve_study("my_own") == "my_own"
    assert [run.variant for run in planned(tmp_path, study="my-own")] == [*load_study("my_own").variants]
    with pytest.raises(UserError, match="unknown study 'schemes'"):
        load_study("schemes")


HEAD = 'title = "Two."\ntable = "table3"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("title = ", "Invalid value (at end of document)"),
        ('title = "Two."\n', "table: Field required (and 1 more)"),
        (HEAD + "[variants]\ntop-1 = {}\n", "variants.top-1.gate: Field required"),
        (HEAD + '[variants]\na = { gate = "top-1", sets.gate.k = 1 }\n', "variants.a.sets: Extra inputs"),
        (HEAD + "[variants]\na = { gate = 1 }\n", "variants.a.gate: Input should be a valid string"),
        (
            HEAD + '[variants]\ntop-2 = { gate = "top-2" }\na = { gate = "top-1", init_from = "top2" }\n',
            "variants.a.init_from: unknown variant 'top2'. Did you mean 'top-2'?",
        ),
    ],
)
def test_a_wrong_file_is_one_line(studies: Path, text: str, problem: str) -> None:
    (studies / "schemes.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_study("schemes")
    (line,) = error.value.problems
    assert line.startswith(f"experiments/studies/schemes.toml: {problem}")
