"""What every task promises to the trainer, on synthetic rows, a trained tokenizer and a small model."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rows_by_hand import RowsOf

from repro import paper, plugins
from repro.data.features import cached_features
from repro.data.rows import load_rows, rows_fingerprint
from repro.metrics.base import load as load_metric
from repro.moe.backbones.base import load as load_backbone
from repro.run.scales import read_scale
from repro.tasks import arc, cnn_dailymail, soda, squad, sst2, wikitext, wmt19
from repro.tasks.base import Batch, Feature, Prediction, Row, Task, TaskModule, load

MODULES: list[TaskModule] = [arc, cnn_dailymail, soda, squad, sst2, wikitext, wmt19]
"""All tasks, so that mypy holds each against the contract."""
TASKS = plugins.names("tasks")
HEAVY = ("torch", "transformers", "numpy", "pandas", "datasets", "evaluate", "pyarrow", "tokenizers", "scipy")

# So tight that something is cut, or does not fit into one feature, and options that fit such lengths.
MAX_LENGTH = {
    "sst2": 16,
    "squad": 64,
    "wmt19": 20,
    "cnn_dailymail": 128,
    "wikitext": 32,
    "soda": 156,
    "arc": 40,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "squad": {"stride": 16, "max_question_length": 20},
    "wmt19": {"max_target_length": 20, "beams": 2},
    "cnn_dailymail": {"max_target_length": 28, "beams": 2},
}
STREAMS = ("wikitext",)
"""Tasks whose features are no function of single rows."""


@dataclass(frozen=True)
class Case:
    module: TaskModule
    rows: list[Row]
    tokenizer: Any
    task: Task
    features: list[Feature]


def task_of(name: str, tokenizer: Any, max_length: int) -> Task:
    module = load(name)
    return module.Task(module.Config(**OPTIONS.get(name, {})), tokenizer, max_length)


@cache
def case(name: str) -> Case:
    """Twelve rows and their features."""
    module = load(name)
    rows = load_rows(module, "synthetic", None, "train", 12).rows
    corpus = [
        text for row in load_rows(module, "synthetic", None, "train", 60).rows for text in module.texts(row)
    ]
    tokenizer = load_backbone(module.BACKBONE).train_tokenizer(corpus, 600)
    task = task_of(name, tokenizer, MAX_LENGTH[name])
    return Case(module, rows, tokenizer, task, task.encode(rows))


@cache
def model(name: str) -> Any:
    """One layer or two of the task's model, with random weights and the sizes of the `mini` scale."""
    module, tokenizer = case(name).module, case(name).tokenizer
    backbone = load_backbone(module.BACKBONE)
    options = read_scale("mini")[name]["model"]["config"] | module.MODEL_OPTIONS
    torch.manual_seed(0)
    config = backbone.CONFIG(**options, **backbone.vocabulary(tokenizer))
    return backbone.HEADS[module.HEAD](config).eval()


def features_of(name: str, numbers: list[int]) -> list[Feature]:
    return [case(name).features[number] for number in numbers]


def batch_of(name: str, numbers: list[int]) -> Batch:
    return case(name).task.collate(features_of(name, numbers))


def score(name: str, predictions: list[Prediction], features: list[Feature], rows: list[Row]) -> float:
    """The headline number of what `predict` gave for the features."""
    metric = case(name).module.METRIC
    answers, references = case(name).task.answers(predictions, features, rows)
    value = load_metric(metric).Metric().compute(predictions=answers, references=references)[metric]
    assert isinstance(value, float)
    return value


def test_the_papers_six_tasks_and_one_more() -> None:
    assert TASKS == ["arc", "cnn_dailymail", "soda", "squad", "sst2", "wikitext", "wmt19"]
    assert sorted(paper.tasks()) == TASKS[1:]
    assert [load(name) for name in TASKS] == MODULES
    assert {name: load(name).BACKBONE for name in TASKS} == {
        "arc": "gpt2",
        "cnn_dailymail": "bart",
        "soda": "gpt2",
        "squad": "bert",
        "sst2": "bert",
        "wikitext": "gpt2",
        "wmt19": "fsmt",
    }


@pytest.mark.parametrize("name", TASKS)
def test_a_task_satisfies_its_contract(name: str) -> None:
    module = load(name)
    for text in (module.TITLE, module.METRIC, module.CORPUS, module.BACKBONE, module.HEAD):
        assert isinstance(text, str)
    assert module.METRIC in plugins.names("metrics")
    assert module.CORPUS in plugins.names("corpora")
    assert module.HEAD in load_backbone(module.BACKBONE).HEADS
    place, configuration = module.HUB
    assert place.count("/") == 1
    assert configuration is None or isinstance(configuration, str)
    assert module.FOLDERS[0] == name
    assert isinstance(module.FOLDERS, tuple)
    assert isinstance(module.COLUMNS, tuple)
    assert type(module.CONTIGUOUS) is bool
    assert isinstance(module.MODEL_OPTIONS, dict)
    assert issubclass(module.Task, Task)


@pytest.mark.parametrize("name", TASKS)
def test_importing_a_task_loads_no_numerical_library(name: str) -> None:
    """Lists and the report import all of them."""
    program = f"import sys, repro.tasks.{name}; print(*sorted(set({HEAVY}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("name", TASKS)
def test_options_are_a_frozen_value_with_defaults(name: str) -> None:
    config = case(name).module.Config
    assert config.__dataclass_params__.frozen
    assert config() == config()
    assert hash(config()) == hash(config())
    for entry in dataclasses.fields(config):
        assert entry.default is not dataclasses.MISSING


@pytest.mark.parametrize("name", TASKS)
def test_synthetic_rows_have_no_problem(name: str) -> None:
    assert [case(name).module.problem(row) for row in case(name).rows] == [None] * 12
    for row in case(name).rows:
        assert set(case(name).module.COLUMNS) <= set(row)


@pytest.mark.parametrize("name", TASKS)
def test_hand_made_rows_have_no_problem(name: str, hand_made: RowsOf) -> None:
    assert [case(name).module.problem(row) for row in hand_made(name, 8)] == [None] * 8


@pytest.mark.parametrize("name", TASKS)
def test_texts_are_what_the_tokenizer_learns(name: str) -> None:
    seen = [case(name).module.texts(row) for row in case(name).rows]
    for texts in seen:
        assert texts or name in STREAMS
        assert all(isinstance(text, str) and text for text in texts)
    assert any(seen)


@pytest.mark.parametrize("name", TASKS)
def test_features_are_within_the_length(name: str) -> None:
    features, tokenizer = case(name).features, case(name).tokenizer
    assert len(features) >= 12
    for feature in features:
        assert 0 < len(feature["input_ids"]) <= MAX_LENGTH[name]
        assert all(type(number) is int and 0 <= number < len(tokenizer) for number in feature["input_ids"])
        assert type(feature["cut"]) is bool
        limit = max(MAX_LENGTH[name], OPTIONS.get(name, {}).get("max_target_length", 0))
        assert len(feature["input_ids"]) <= case(name).task.length(feature) <= limit
    assert max(len(feature["input_ids"]) for feature in features) == MAX_LENGTH[name]


@pytest.mark.parametrize("name", TASKS)
def test_cut_tells_whether_something_was_lost(name: str) -> None:
    """Windows and streams lose nothing; with room for everything no task does."""
    tight = [feature["cut"] for feature in case(name).features]
    assert any(tight) == (name not in ("squad", "wikitext"))
    module, tokenizer = case(name).module, case(name).tokenizer
    wide = {key: 1000 for key in OPTIONS.get(name, {}) if key.startswith("max_")}
    roomy = module.Task(module.Config(**wide), tokenizer, 4000).encode(case(name).rows)
    assert not any(feature["cut"] for feature in roomy)


@pytest.mark.parametrize("name", TASKS)
def test_features_come_back_from_the_cache_as_they_were(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    task, rows = case(name).task, case(name).rows
    first = cached_features(task, rows, rows_fingerprint(rows))
    monkeypatch.setattr(task, "encode", None)
    again = cached_features(task, rows, rows_fingerprint(rows))
    assert again == first == case(name).features
    assert json.dumps(again) == json.dumps(first)  # 1 and True are equal, but not the same


@pytest.mark.parametrize("name", [name for name in TASKS if name not in STREAMS])
def test_encoding_does_not_depend_on_the_neighbours(name: str) -> None:
    task, rows = case(name).task, case(name).rows
    alone = [feature | {"row": number} for number, row in enumerate(rows) for feature in task.encode([row])]
    assert [feature | {"row": feature.get("row")} for feature in case(name).features] == [
        feature | ({} if name == "squad" else {"row": None}) for feature in alone
    ]
    if name != "squad":
        assert len(alone) == 12


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("numbers", [[0], [3, 1, 2], list(range(12))])
def test_a_batch_is_padded_and_masked(name: str, numbers: list[int]) -> None:
    batch, features = batch_of(name, numbers), features_of(name, numbers)
    tokenizer, masks = case(name).tokenizer, case(name).task.masks(batch)
    assert all(tensor.shape[0] == len(numbers) for tensor in batch.values())
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    seq2seq = case(name).module.HEAD == "sequence-to-sequence"
    decoder = case(name).module.HEAD == "causal-language-model"
    stacks = {"encoder", "decoder"} if seq2seq else {"decoder"} if decoder else {"encoder"}
    assert set(masks) == stacks
    sequences = {
        "input_ids": ("decoder" if decoder else "encoder", [feature["input_ids"] for feature in features])
    }
    if seq2seq:
        start = [tokenizer.eos_token_id]
        shifted = [start + feature["labels"][:-1] for feature in features]
        sequences["decoder_input_ids"] = ("decoder", shifted)
    for key, (stack, ids) in sequences.items():
        lengths = [len(row) for row in ids]
        assert batch[key].shape == masks[stack].shape == (len(numbers), max(lengths))
        assert masks[stack].sum(1).tolist() == lengths
        for row, length in enumerate(lengths):
            assert masks[stack][row, :length].all()
            assert batch[key][row, :length].tolist() == ids[row]
            assert (batch[key][row, length:] == tokenizer.pad_token_id).all()
        if len(numbers) == 12 and name not in STREAMS:  # a stream has a short block only at its end
            assert len(set(lengths)) > 1  # else nothing was padded
    assert max(masks[stack].shape[1] for stack in masks) == max(map(case(name).task.length, features))


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("squad", "sst2")])
def test_labels_are_tokens_and_padding_is_ignored(name: str) -> None:
    numbers = [0, 3, 5, len(case(name).features) - 1]
    batch, features = batch_of(name, numbers), features_of(name, numbers)
    labels = batch["labels"]
    for row, feature in enumerate(features):
        expected = feature.get("labels") or [
            token if scored else -100
            for token, scored in zip(feature["input_ids"], feature["scored"], strict=True)
        ]
        assert labels[row, : len(expected)].tolist() == expected
        assert (labels[row, len(expected) :] == -100).all()
    assert (labels[:, -1] == -100).any()  # else nothing was padded
    # A decoder's first token has nothing before it; an encoder-decoder's is predicted from the source.
    assert (labels[:, 0] == -100).all() == (case(name).module.HEAD == "causal-language-model")


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_of_a_batch_is_the_mean_over_its_terms(name: str) -> None:
    # So losses of batches, each times its number of terms, add up.
    def loss_sum(numbers: list[int]) -> tuple[float, int]:
        batch = batch_of(name, numbers)
        terms = case(name).task.loss_terms(batch)
        assert type(terms) is int
        with torch.no_grad():
            return float(case(name).task.loss(model(name)(**batch), batch)) * terms, terms

    last = len(case(name).features) - 1  # the short one of a stream
    together, terms = loss_sum([0, 1, 2, 3, last])
    first, first_terms = loss_sum([0, last])
    rest, rest_terms = loss_sum([1, 2, 3])
    assert terms == first_terms + rest_terms > 0
    assert together == pytest.approx(first + rest, rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_padding_does_not_change_the_loss(name: str) -> None:
    # BertForQuestionAnswering's own loss normalises over all positions, padding included.
    features = sorted(case(name).features, key=case(name).task.length)
    chosen = [features[0], features[-1]]
    assert case(name).task.length(chosen[0]) < case(name).task.length(chosen[1])

    def loss_sum(features: list[Feature]) -> float:
        batch = case(name).task.collate(features)
        with torch.no_grad():
            loss = case(name).task.loss(model(name)(**batch), batch)
            return float(loss) * case(name).task.loss_terms(batch)

    assert loss_sum(chosen) == pytest.approx(loss_sum(chosen[:1]) + loss_sum(chosen[1:]), rel=1e-5)


def terms_of(name: str, feature: Feature) -> int:
    return case(name).task.loss_terms(case(name).task.collate([feature]))


@pytest.mark.parametrize("name", TASKS)
def test_terms_are_counted_per_feature(name: str) -> None:
    for feature in case(name).features[:4]:
        expected = {
            "sequence-classification": 1,
            "question-answering": 1,
            "sequence-to-sequence": len(feature.get("labels", [])),
            "causal-language-model": sum(feature.get("scored", [])),
        }[case(name).module.HEAD]
        assert terms_of(name, feature) == expected


@pytest.mark.parametrize("name", TASKS)
def test_one_prediction_per_feature_that_the_metric_takes(name: str) -> None:
    features = task_features = case(name).features
    rows = case(name).rows
    if case(name).module.HEAD == "sequence-to-sequence":  # generation takes its time
        features, rows = task_features[:4], rows[:4]
    predictions: list[Prediction] = []
    for start in range(0, len(features), 4):
        chosen = features[start : start + 4]
        batch = case(name).task.collate(chosen)
        with torch.no_grad():
            predictions += case(name).task.predict(model(name), batch, model(name)(**batch), chosen)
        assert len(predictions) == start + len(chosen)
    answers, references = case(name).task.answers(predictions, features, rows)
    assert len(answers) == len(references) == (len(features) if name in STREAMS else len(rows))
    value = score(name, predictions, features, rows)
    if case(name).module.METRIC == "perplexity":  # a model with random weights is nearly uniform
        assert value == pytest.approx(len(case(name).tokenizer), rel=0.5)
    else:
        assert 0 <= value < score(name, perfect(name)[: len(features)], features, rows)


@pytest.mark.parametrize("name", TASKS)
def test_a_prediction_does_not_depend_on_the_batch(name: str) -> None:
    features = case(name).features[:3]
    batch = case(name).task.collate(features)
    with torch.no_grad():
        together = case(name).task.predict(model(name), batch, model(name)(**batch), features)
        alone = []
        for feature in features:
            batch = case(name).task.collate([feature])
            alone += case(name).task.predict(model(name), batch, model(name)(**batch), [feature])
    for one, other in zip(together, alone, strict=True):
        assert one == (pytest.approx(other, rel=1e-4) if isinstance(other, float | tuple) else other)


def perfect(name: str) -> list[Prediction]:
    """What `predict` would find for all features if the model knew the answers."""
    features, rows = case(name).features, case(name).rows
    if name == "sst2":
        return [row["label"] for row in rows]
    if name == "squad":
        # High scores where the answer is, and something else in windows without it.
        spans = []
        for feature in features:
            answer = rows[feature["row"]]["answers"]
            start, text = answer["answer_start"][0], answer["text"][0]
            place = (start, start + len(text)) if feature["start"] else (0, 3)
            spans.append((float(feature["start"] > 0), *place))
        return spans
    if name == "wmt19":
        return [row["translation"]["en"] for row in rows]
    if name == "cnn_dailymail":
        return [row["highlights"] for row in rows]
    if name == "arc":
        places = [[label == row["answerKey"] for label in row["choices"]["label"]] for row in rows]
        return [tuple(-1.0 + is_right for is_right in row) for row in places]
    return [0.0] * len(features)


@pytest.mark.parametrize("name", TASKS)
def test_perfect_predictions_score_best_possible(name: str) -> None:
    def result(predictions: list[Prediction]) -> float:
        return score(name, predictions, case(name).features, case(name).rows)

    predictions = perfect(name)
    best = result(predictions)
    if case(name).module.METRIC == "perplexity":
        assert best == 1.0
        assert result([3.0, *predictions[1:]]) > 1.0
        return
    assert best in (pytest.approx(1.0), pytest.approx(100.0))  # a share, or percent
    assert result([*predictions[1:], predictions[0]]) < best
