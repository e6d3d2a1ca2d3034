"""What every task promises to the trainer, on synthetic rows, a trained tokenizer and a small model."""

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import evaluate
import pytest
import torch

from repro import plugins
from repro.experiments import read_scale
from repro.tasks._data import load_rows

TASKS = plugins.names("tasks")
MAX_LENGTH = 16


@dataclass(frozen=True)
class Case:
    task: ModuleType
    rows: list[dict[str, Any]]
    tokenizer: Any
    features: list[dict[str, Any]]


@cache
def case(name: str) -> Case:
    """Twelve rows, encoded so tightly that some of them are cut."""
    task = plugins.load("tasks", name)
    rows = load_rows(task, "synthetic", None, "train", 12)
    corpus = [text for row in load_rows(task, "synthetic", None, "train", 100) for text in task.texts(row)]
    tokenizer = plugins.load("backbones", task.BACKBONE).train_tokenizer(corpus, 300)
    return Case(task, rows, tokenizer, task.encode(rows, tokenizer, MAX_LENGTH))


@cache
def model(name: str) -> Any:
    """The model of the `mini` scale, with random weights."""
    task, tokenizer = case(name).task, case(name).tokenizer
    backbone = plugins.load("backbones", task.BACKBONE)
    options = read_scale("mini")[name]["model"]["config"] | task.MODEL_OPTIONS
    torch.manual_seed(0)
    config = backbone.CONFIG(**options, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    return backbone.HEADS[task.HEAD](config).eval()


def batch_of(name: str, numbers: list[int]) -> dict[str, torch.Tensor]:
    features = [case(name).features[number] for number in numbers]
    batch: dict[str, torch.Tensor] = case(name).task.collate(features, case(name).tokenizer.pad_token_id)
    return batch


@pytest.mark.parametrize("name", TASKS)
def test_constants_can_be_read_without_importing(name: str) -> None:
    found, task = plugins.constants("tasks", name), plugins.load("tasks", name)
    for key in ("TITLE", "METRIC", "HUB", "FOLDER", "CORPUS", "COLUMNS", "BACKBONE", "HEAD", "MODEL_OPTIONS"):
        assert found[key] == getattr(task, key)
    assert found["METRIC"] in plugins.names("metrics")
    assert found["CORPUS"] in plugins.names("corpora")
    assert found["BACKBONE"] in plugins.names("backbones")
    assert found["HEAD"] in plugins.load("backbones", task.BACKBONE).HEADS
    assert len(task.HUB) == 2
    assert plugins.summary("tasks", name)


@pytest.mark.parametrize("name", TASKS)
def test_synthetic_rows_have_no_problem(name: str) -> None:
    assert [case(name).task.problem(row) for row in case(name).rows] == [None] * 12


@pytest.mark.parametrize("name", TASKS)
def test_texts_are_what_the_tokenizer_learns(name: str) -> None:
    for row in case(name).rows:
        texts = case(name).task.texts(row)
        assert texts
        assert all(isinstance(text, str) and text for text in texts)


@pytest.mark.parametrize("name", TASKS)
def test_one_feature_per_row_within_the_length(name: str) -> None:
    features, tokenizer = case(name).features, case(name).tokenizer
    assert len(features) == 12
    for feature in features:
        assert 0 < len(feature["input_ids"]) <= MAX_LENGTH
        assert all(type(number) is int and 0 <= number < len(tokenizer) for number in feature["input_ids"])
        assert tokenizer.pad_token_id not in feature["input_ids"]
    long = case(name).task.encode(case(name).rows, tokenizer, 100)
    assert max(len(feature["input_ids"]) for feature in long) > MAX_LENGTH  # so some were cut
    assert max(len(feature["input_ids"]) for feature in features) == MAX_LENGTH


@pytest.mark.parametrize("name", TASKS)
def test_encoding_does_not_depend_on_the_neighbours(name: str) -> None:
    task, rows = case(name).task, case(name).rows
    alone = [task.encode([row], case(name).tokenizer, MAX_LENGTH)[0] for row in rows]
    assert alone == case(name).features


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("numbers", [[0], [3, 1, 2], list(range(12))])
def test_a_batch_is_padded_and_masked(name: str, numbers: list[int]) -> None:
    batch = batch_of(name, numbers)
    assert all(tensor.shape[0] == len(numbers) for tensor in batch.values())
    features = [case(name).features[number] for number in numbers]
    lengths = [len(feature["input_ids"]) for feature in features]
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids.shape == mask.shape == (len(numbers), max(lengths))
    assert mask.sum(1).tolist() == lengths
    for row, length in enumerate(lengths):
        assert mask[row, :length].all()
        assert ids[row, :length].tolist() == features[row]["input_ids"]
        assert (ids[row, length:] == case(name).tokenizer.pad_token_id).all()
    if len(numbers) == 12:
        assert len(set(lengths)) > 1  # else nothing was padded


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_of_a_batch_is_the_mean_over_its_terms(name: str) -> None:
    # So losses of batches, each times its number of terms, add up.
    def loss_sum(numbers: list[int]) -> tuple[float, int]:
        batch = batch_of(name, numbers)
        terms = case(name).task.loss_terms(batch)
        assert type(terms) is int
        with torch.no_grad():
            return float(model(name)(**batch).loss) * terms, terms

    together, terms = loss_sum([0, 1, 2, 3, 4])
    first, first_terms = loss_sum([0, 1])
    rest, rest_terms = loss_sum([2, 3, 4])
    assert terms == first_terms + rest_terms > 0
    assert together == pytest.approx(first + rest, rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_one_prediction_per_example_that_the_metric_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    task, batch = case(name).task, batch_of(name, list(range(12)))
    with torch.no_grad():
        predictions = task.predict(model(name)(**batch), batch)
    assert len(predictions) == 12
    metric = plugins.load("metrics", task.METRIC).Metric(keep_in_memory=True)
    result = metric.compute(predictions=predictions, references=task.references(case(name).rows))
    assert isinstance(result[task.METRIC], float)


@pytest.mark.parametrize("name", TASKS)
def test_the_references_score_best_possible(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    task = case(name).task
    module = plugins.load("metrics", task.METRIC)

    def score(predictions: list[Any]) -> float:
        metric = module.Metric(keep_in_memory=True)
        found = metric.compute(predictions=predictions, references=task.references(case(name).rows))
        return float(found[task.METRIC])

    references = task.references(case(name).rows)
    assert len(references) == 12
    # Where several answers are right, a reference lists them, and the first is a right prediction.
    answers = [reference[0] if isinstance(reference, list) else reference for reference in references]
    best, moved = score(answers), score([*answers[1:], answers[0]])
    if module.HIGHER_IS_BETTER:
        assert best in (pytest.approx(1.0), pytest.approx(100.0))  # a share, or percent
        assert moved < best
    else:
        assert moved > best
