"""What every metric promises: the type of its module, its entries, and that it writes no file."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import evaluate
import pytest

from repro import plugins, tasks
from repro.metrics import acc_norm, accuracy, bleu, f1, perplexity, rouge1
from repro.metrics.base import MetricModule, load
from repro.tasks.base import load as load_task

MODULES: list[MetricModule] = [acc_norm, accuracy, bleu, f1, perplexity, rouge1]
"""All metrics, so that mypy holds each against the contract."""
METRICS = plugins.names("metrics")


def example(feature: object) -> object:
    """Some value of a feature type: 1, a few words, or lists and mappings of them."""
    if isinstance(feature, dict):
        return {name: example(inner) for name, inner in feature.items()}
    if isinstance(feature, datasets.List | datasets.Sequence):
        return [example(feature.feature)]
    assert isinstance(feature, datasets.Value)
    return "a few words here" if feature.dtype == "string" else 1


def test_the_list_of_metrics_is_complete() -> None:
    assert [load(name) for name in METRICS] == MODULES


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_satisfies_its_contract(name: str) -> None:
    module = load(name)
    assert isinstance(module.HIGHER_IS_BETTER, bool)
    assert issubclass(module.Metric, evaluate.Metric)
    assert module.Metric.__doc__


def test_only_perplexity_is_better_when_lower() -> None:
    assert [name for name in METRICS if not load(name).HIGHER_IS_BETTER] == ["perplexity"]


@pytest.mark.parametrize("name", METRICS)
def test_the_result_has_an_entry_named_after_the_file(name: str) -> None:
    metric = load(name).Metric()
    assert isinstance(metric, evaluate.Metric)
    predictions, references = example(metric.features["predictions"]), example(metric.features["references"])
    result = metric.compute(predictions=[predictions] * 3, references=[references] * 3)
    assert name in result
    assert all(isinstance(value, float | int | str | None) for value in result.values())


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_every_task_names_a_metric(name: str) -> None:
    assert load_task(name).METRIC in METRICS


PROGRAM = """
from repro.metrics.base import load
for name, prediction, reference in (
    ("acc_norm", [-1.0], {"right": 0, "characters": [1], "bytes": [1]}),
    ("accuracy", 1, 1), ("bleu", "a b c d", "a b c d"), ("f1", "a", ["a"]),
    ("perplexity", 1.0, {"tokens": 1, "words": 1}), ("rouge1", "a", "a"),
):
    assert load(name).Metric().compute(predictions=[prediction] * 9, references=[reference] * 9)
"""


@pytest.mark.parametrize("home", ["missing", "below a file"])
def test_a_metric_touches_no_folder(tmp_path: Path, home: str) -> None:
    """Neither those of its library, nor the home folder, nor the one it is called in.

    A folder cannot be made below a file, even by root.
    """
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()
    places = {
        "HOME": "home",
        "XDG_CACHE_HOME": "xdg",
        "HF_HOME": "hub",
        "HF_METRICS_CACHE": "metrics",
        "HF_EVALUATE_CACHE": "evaluate",
        "HF_DATASETS_CACHE": "datasets",
        "HF_MODULES_CACHE": "modules",
        "SACREBLEU": "sacrebleu",
    }
    root = tmp_path / "file" if home == "below a file" else tmp_path
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path / "here",
        env=os.environ
        | {"PYTHONPATH": str(Path(tasks.__path__[0]).parents[1])}
        | {variable: str(root / name) for variable, name in places.items()},
        check=True,
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "here"]
