"""The analysis of a model whose routing is planted, and of real runs against what they measured."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from repro import plugins
from repro._subwords import LabelledText, labelled_texts, marking
from repro.analysis import analyze_run, layer_stacks, observe, spread, write_analysis
from repro.records import ANALYSIS_VERSION, Published, RunFolder, read_json
from repro.routing import LayerRouting, Routing, RoutingLayer

Rule = Callable[[list[int], int], bool]
"""Whether the token at a place of a sequence gets two experts."""


class Planted(RoutingLayer):
    """Routes by a rule: two experts with equal probabilities, or one with a clear lead."""

    def __init__(self, layer: int, rule: Rule, time_major: bool) -> None:
        super().__init__()
        self.layer, self.rule, self.time_major = layer, rule, time_major

    def forward(self, ids_BS: torch.Tensor, mask_BS: torch.Tensor) -> None:
        two_BS = torch.zeros_like(mask_BS).bool()
        for row, mask_S in enumerate(mask_BS):
            ids = ids_BS[row][: int(mask_S.sum())].tolist()
            for place in range(len(ids)):
                two_BS[row, place] = self.rule(ids, place)
        mask = mask_BS.bool()
        if self.time_major:
            two_BS, mask = two_BS.t(), mask.t()
        two_T, mask_T = two_BS.reshape(-1), mask.reshape(-1)
        close, clear = torch.tensor([0.1, 0.4, 0.4, 0.1]), torch.tensor([0.1, 0.7, 0.1, 0.1])
        probs_TE = torch.where(two_T[:, None], close, clear)
        selected_TE = torch.zeros_like(probs_TE).bool()
        selected_TE[:, 1] = True
        selected_TE[:, 2] = two_T
        routing = Routing.from_selection(selected_TE, probs_TE, probs_TE, mask_T, torch.tensor(0.0))
        shape = (mask.shape[0], mask.shape[1])
        assert self.tape is not None
        self.tape.entries.append(LayerRouting(self.layer, routing, shape, self.time_major, sum))


class Model(torch.nn.Module):
    """A stack of planted layers."""

    def __init__(self, *rules: Rule, time_major: bool = False) -> None:
        super().__init__()
        layers = [Planted(number, rule, time_major) for number, rule in enumerate(rules)]
        self.stack = torch.nn.ModuleList(layers)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: Any) -> None:
        for layer in self.stack:
            layer(input_ids, attention_mask)


class Case:
    """Generated reviews, encoded with a vocabulary that holds every word whole, or few of them."""

    def __init__(self, vocabulary: int) -> None:
        module = plugins.load("tasks", "sst2")
        self.rows = plugins.load("corpora", "sentiment").generate(60, 2)
        sentences = [row["sentence"] for row in self.rows]
        self.tokenizer = plugins.load("backbones", "bert").train_tokenizer(sentences, vocabulary)
        self.task = module.Task(module.Config(), self.tokenizer, 128)
        self.features = self.task.encode(self.rows)

    def observe(self, model: Model) -> dict[str, Any]:
        marks = marking(self.tokenizer.get_vocab())
        labels = [LabelledText(labelled_texts(row, ["sentence"]), marks) for row in self.rows]
        stacks = layer_stacks(model, {"encoder": SimpleNamespace(module=model.stack)})
        observer = observe(
            model,
            self.task,
            self.features,
            stacks,
            labels=labels,
            batch_size=16,
            device=torch.device("cpu"),
        )
        return observer.plain() | {"samples": observer.samples}


@pytest.fixture(scope="module")
def whole() -> Case:
    return Case(3000)


@pytest.fixture(scope="module")
def pieces() -> Case:
    return Case(120)


def never(ids: list[int], place: int) -> bool:
    return False


def always(ids: list[int], place: int) -> bool:
    return True


NEGATIONS = ("not", "never", "hardly", "less")


def planted_words(case: Case) -> Rule:
    ids = set(case.tokenizer.convert_tokens_to_ids(list(NEGATIONS)))
    assert case.tokenizer.unk_token_id not in ids
    return lambda tokens, place: tokens[place] in ids


@pytest.mark.parametrize("time_major", [False, True])
def test_planted_words_are_found_and_no_others(whole: Case, time_major: bool) -> None:
    found = whole.observe(Model(never, planted_words(whole), time_major=time_major))["stacks"]["encoder"]
    words = Counter(word for row in whole.rows for word in row["sentence"].replace("'s", "' s").split())
    rows = {row[0]: row for row in found["words"]["rows"]}
    assert rows
    for word, (_, count, two_L, tokens, two_tokens_L) in rows.items():
        assert count == tokens == words[word]
        assert two_L == two_tokens_L == [0, count if word in NEGATIONS else 0]
    assert set(NEGATIONS) & set(rows)


def test_planted_words_are_found_by_category(whole: Case) -> None:
    found = whole.observe(Model(planted_words(whole)))["stacks"]["encoder"]["categories"]
    roles = Counter(role for row in whole.rows for role in row["categories"])
    planted = sum(row["sentence"].split().count(word) for row in whole.rows for word in NEGATIONS)
    assert set(found) == set(roles)
    assert {role: two_L[0] for role, (_, two_L) in found.items() if two_L[0]} == {"negation": planted}
    assert found["negative"][0] == roles["negative"]  # each one token
    assert found["negation"][0] == roles["negation"]


def test_categories_of_words_in_pieces(pieces: Case) -> None:
    """Whatever the subwords, every token but the special ones has the category of its word."""
    found = pieces.observe(Model(always))["stacks"]["encoder"]
    tokens = sum(len(feature["input_ids"]) - 2 for feature in pieces.features)
    assert tokens > sum(len(row["categories"]) for row in pieces.rows)
    assert sum(counts[0] for counts in found["categories"].values()) == tokens
    assert found["all"] == [tokens, [tokens]]


def test_a_word_in_pieces_needs_one_of_them(pieces: Case) -> None:
    """The first piece of every word gets two experts: all words do, and as many tokens as words."""
    vocabulary = {number: token for token, number in pieces.tokenizer.get_vocab().items()}

    def first_piece(ids: list[int], place: int) -> bool:
        return not vocabulary[ids[place]].startswith(("##", "["))

    found = pieces.observe(Model(first_piece))["stacks"]["encoder"]
    words, (two,) = found["words"]["all"]
    assert words == two == found["all"][1][0] < found["all"][0]


def test_planted_positions_are_found(whole: Case) -> None:
    found = whole.observe(Model(lambda ids, place: place * 10 // len(ids) == 4))["stacks"]["encoder"]
    for number, (tokens, (two,)) in enumerate(found["positions"]):
        assert two == (tokens if number == 4 else 0)
    assert found["positions"][4][0] > 0


def test_layers_by_hand(whole: Case) -> None:
    """Special tokens count here: the layer computes them too."""
    layers = whole.observe(Model(never, always))["layers"]
    tokens = sum(len(feature["input_ids"]) for feature in whole.features)
    assert [layer["by_count"] for layer in layers] == [[0, tokens], [0, 0, tokens]]
    assert [layer["load"] for layer in layers] == [[0, tokens, 0, 0], [0, tokens, tokens, 0]]
    assert [layer["clear"] for layer in layers] == [tokens, 0]
    assert layers[0]["mass"] == pytest.approx([0.1, 0.7, 0.1, 0.1])


@pytest.mark.parametrize("time_major", [False, True])
def test_samples_and_activations(whole: Case, time_major: bool) -> None:
    """Of the first sequence each token with its experts; of the middle layer 64 tokens with all of them."""
    found = whole.observe(Model(never, planted_words(whole), time_major=time_major))
    sample = found["samples"][0]["encoder"]
    assert sample["tokens"][0] == " [CLS]"
    assert "".join(sample["tokens"][1:-1]).split()[0] == whole.rows[0]["sentence"].split()[0]
    for token, pairs in zip(sample["tokens"], sample["layers"]["1"], strict=True):
        two = token.strip() in NEGATIONS
        assert pairs == ([[1, 0.4], [2, 0.4]] if two else [[1, 0.7]])
    activations = found["activations"]
    assert activations["layer"] == 1
    assert 50 < len(activations["tokens"]) <= 64
    for token, probabilities in activations["tokens"]:
        assert max(probabilities) == pytest.approx(0.4 if token in NEGATIONS else 0.7)


def test_spread() -> None:
    assert spread(10, 3) == [0, 3, 6]
    assert spread(2, 5) == [0, 1]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("squad", {"encoder": {"question", "context"}}),
        ("soda", {"decoder": {"context", "response"}}),
        ("wmt19", {"encoder": {"source"}, "decoder": {"target"}}),
        ("sst2", {"encoder": {"text"}}),
    ],
)
def test_parts_cover_every_position_that_a_stack_reads(
    name: str, wanted: dict[str, set[str]], hand_made: Any
) -> None:
    module = plugins.load("tasks", name)
    rows = hand_made(name, 8)
    texts = [text for row in rows for text in module.texts(row)]
    tokenizer = plugins.load("backbones", module.BACKBONE).train_tokenizer(texts, 300)
    task = module.Task(module.Config(**({"stride": 8} if name == "squad" else {})), tokenizer, 96)
    for feature in task.encode(rows):
        inputs, parts = task.inputs(feature), task.parts(feature)
        batch = task.collate([feature])
        masks = task.masks(batch)
        assert set(inputs) == set(parts) == set(masks)
        for stack, ids in inputs.items():
            assert len(parts[stack]) == len(ids) == int(masks[stack].sum())
        assert {stack: set(names) for stack, names in parts.items()} == wanted
        last = batch["decoder_input_ids"] if "decoder_input_ids" in batch else batch["input_ids"]
        assert last[0].tolist() == list(inputs.values())[-1]


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
def test_a_real_run_agrees_with_its_own_evaluation(task: str, trained: Any, tmp_path: Path) -> None:
    made = trained("adaptive", task)
    shutil.copytree(made.results, tmp_path / "results")
    (path,) = (tmp_path / "results").glob("*/runs/*")
    analysis = analyze_run(RunFolder(path))
    evaluated = made.result["routing_eval"]["share_by_count_per_layer"]
    for layer, shares in zip(analysis["layers"], evaluated, strict=True):
        found = [count / layer["tokens"] for count in layer["by_count"]]
        assert found == pytest.approx(shares[: len(found)], abs=0.01)
    stacks = [layer["stack"] for layer in analysis["layers"]]
    assert list(dict.fromkeys(stacks)) == {"sst2": ["encoder"], "wmt19": ["encoder", "decoder"]}[task]
    for counts in analysis["stacks"].values():  # every word of the corpus has its label
        assert sum(entry[0] for entry in counts["categories"].values()) == counts["all"][0]
    assert analysis["training"]["steps"][-1] == made.result["steps"]


def test_what_is_written(trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained("adaptive").results, tmp_path / "results")
    (path,) = (tmp_path / "results").glob("*/runs/*")
    folder = RunFolder(path)
    analysis = analyze_run(folder, samples=5)
    assert (analysis["version"], analysis["data"]["sequences"]) == (ANALYSIS_VERSION, 5)
    data, page = write_analysis(folder, analysis)
    assert read_json(folder.analysis) == json.loads(json.dumps(analysis))
    published = Published.read(tmp_path / "results" / "mini").analyses[path.name]
    assert published == read_json(data)
    assert published == {key: value for key, value in read_json(folder.analysis).items() if key != "samples"}
    assert path.name in page.read_text(encoding="utf-8")
    assert data.stat().st_size < 300_000


def test_another_version_is_left_out(hand_analysis: Any, tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    for number, version in enumerate((ANALYSIS_VERSION, ANALYSIS_VERSION + 1)):
        text = json.dumps(hand_analysis("sst2", seed=number, version=version))
        (tmp_path / "analysis" / f"run-{number}.json").write_text(text, encoding="utf-8")
    assert list(Published.read(tmp_path).analyses) == ["run-0"]
