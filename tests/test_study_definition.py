"""Studies as files: what their tables mean, and a line for whatever is wrong with one."""

from pathlib import Path

import pytest
from command_line import Settings
from planned import copy_studies, planned

from repro import plugins
from repro.config import ORDERS_BY_RATIOS
from repro.errors import UserError
from repro.run.scales import read_scale
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


@pytest.mark.parametrize("study", study_names())
def test_a_table_of_times_is_of_runs_that_go_on_to_a_target(study: str) -> None:
    definition = load_study(study)
    columns = plugins.load("tables", definition.table).COLUMNS
    timed = any("Training Time" in column for column in columns)
    assert all((definition.baseline_of(label) is not None) == timed for label in definition.variants)


def test_settings_are_dotted_keys() -> None:
    variants = load_study("threshold").variants
    assert variants["top-2"].settings == {}
    values = {label: variant.settings for label, variant in variants.items() if label != "top-2"}
    assert values == {label: {"gate.threshold": float(label)} for label in values}


def test_a_recipe_adds_that_of_the_variant_to_that_of_all() -> None:
    study = load_study("adamoe")
    both = {"training.epochs": 1, "training.curriculum": "random"}
    assert study.recipe_of("plain", "sst2", "mini") == both
    assert study.recipe_of("adamoe", "sst2", "mini") == both | {"gate.k": 3, "gate.nulls": 16}
    assert study.recipe_of("adamoe", "arc", "small") == study.recipe_of("adamoe", "sst2", "small")


def test_a_task_with_another_model_has_a_recipe_of_its_own() -> None:
    """Over that of all tasks, where the model is there."""
    study = load_study("adamoe")
    both = {"training.epochs": 2, "training.curriculum": "random", "training.lora_rank": 8}
    assert study.recipe_of("plain", "arc", "mini") == both
    own = {"gate.k": 3, "gate.nulls": 8, "gate.balance": 0.02, "training.balance_late": 0.005}
    assert study.recipe_of("adamoe", "arc", "mini") == both | own


def test_a_file_is_a_study(tmp_path: Path, studies: Path) -> None:
    """Under its name, in which `-` and `_` are the same."""
    (studies / "schemes.toml").rename(studies / "my_own.toml")
    assert "my_own" in study_names()
    assert resolve_study("my-own") == resolve_study("my_own") == "my_own"
    assert [run.variant for run in planned(tmp_path, study="my-own")] == [*load_study("my_own").variants]
    with pytest.raises(UserError, match="unknown study 'schemes'"):
        load_study("schemes")


def test_settings_of_a_study_are_those_of_all_its_variants(tmp_path: Path, studies: Path) -> None:
    """Where they mean something, and where a variant says nothing else."""
    (studies / "schemes.toml").write_text(
        'title = "Three."\ntable = "table3"\n'
        '[set]\nexperts.scale = "fitted"\ntraining.curriculum = "random"\ngate.combine = "renormalised"\n'
        '[variants]\ndense = { gate = "dense" }\ntop-2 = { gate = "top-2", set.experts.scale = "none" }\n'
        'adaptive = { gate = "adaptive", set.gate.combine = "raw" }\n'
    )
    runs = {run.variant: run.config for run in planned(tmp_path)}
    assert {run.training.curriculum for run in runs.values()} == {"random"}
    assert (runs["top-2"].experts.scale, runs["top-2"].gate_options.combine) == ("none", "renormalised")
    assert (runs["adaptive"].experts.scale, runs["adaptive"].gate_options.combine) == ("fitted", "raw")
    assert runs["dense"].experts.scale == "none"


@pytest.mark.parametrize("settings", [{}, {"training.steps": 7}, {"training.epochs": 1}])
def test_the_orders_of_the_curriculum_have_three_epochs_to_act(tmp_path: Path, settings: Settings) -> None:
    """Whatever the user says: of steps and epochs the study's stand. Each is compared on its own back-end."""
    runs = {run.variant: run.config for run in planned(tmp_path, study="curriculum", settings=settings)}
    assert {(run.training.epochs, run.training.steps) for run in runs.values()} == {(4, None)}
    assert {label: run.training.curriculum for label, run in runs.items()} == {
        label: label.split()[0] for label in runs
    }
    assert set(ORDERS_BY_RATIOS) | {"random", "length"} <= set(runs)
    backends = {label: run.experts.backend for label, run in runs.items()}
    assert {label for label, backend in backends.items() if backend == "padded"} == {
        "cosine padded",
        "random padded",
    }
    baseline_of = load_study("curriculum").baseline_of
    for label in runs:
        assert baseline_of(label) == " ".join(["cosine", *label.split()[1:]])


def test_a_variant_may_multiply_a_setting(tmp_path: Path, studies: Path) -> None:
    """By default that of the scale for the task, else the user's; a rate recorded for a scheme is no base."""
    scale = read_scale("mini")
    rates = {
        (run.config.task, run.variant): run.config.training.learning_rate
        for run in planned(tmp_path, ["sst2", "wmt19"], study="learning_rate")
    }
    assert len(rates) == 2 * 12
    for scheme in ("dense", "top-2", "top-1", "adaptive"):
        for label, factor in (("0.5", 0.5), ("1", 1.0), ("2", 2.0)):
            for task in ("sst2", "wmt19"):
                assert rates[task, f"{scheme} {label}"] == factor * scale[task]["training"]["learning_rate"]
    (run,) = planned(
        tmp_path, study="learning_rate", only=["top-1 2"], settings={"training.learning_rate": 0.25}
    )
    assert run.config.training.learning_rate == 0.5


def test_what_is_multiplied_must_be_a_number(tmp_path: Path, studies: Path) -> None:
    (studies / "schemes.toml").write_text(
        'title = "Two."\ntable = "table3"\n[variants]\n'
        'a = { gate = "top-1", times.training.precision = 2 }\nb = { gate = "top-2" }\n'
    )
    with pytest.raises(UserError) as error:
        planned(tmp_path)
    assert list(error.value.problems) == [
        "study schemes: times.training.precision: 2 times 'auto' is no number"
    ]


HEAD = 'title = "Two."\ntable = "table3"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("title = ", "Invalid value (at end of document)"),
        ('title = "Two."\n', "table: Field required (and 1 more)"),
        (HEAD + "[variants]\ntop-1 = {}\n", "variants.top-1.gate: Field required"),
        (HEAD + '[variants]\na = { gate = "top-1", sets.gate.k = 1 }\n', "variants.a.sets: Extra inputs"),
        (
            HEAD + '[variants]\na = { gate = "top-1", times.training.learning_rate = "2" }\n',
            "variants.a.times.training.learning_rate: Input should be a valid number",
        ),
        (HEAD + "[variants]\na = { gate = 1 }\n", "variants.a.gate: Input should be a valid string"),
        (
            HEAD + '[variants]\ntop-2 = { gate = "top-2" }\na = { gate = "top-1", init_from = "top2" }\n',
            "variants.a.init_from: unknown variant 'top2'. Did you mean 'top-2'?",
        ),
        (
            HEAD + '[variants]\ntop-2 = { gate = "top-2" }\na = { gate = "top-1", baseline = "top2" }\n',
            "variants.a.baseline: unknown variant 'top2'. Did you mean 'top-2'?",
        ),
    ],
)
def test_a_wrong_file_is_one_line(studies: Path, text: str, problem: str) -> None:
    (studies / "schemes.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_study("schemes")
    (line,) = error.value.problems
    assert line.startswith(f"experiments/studies/schemes.toml: {problem}")
