"""The analysis of a model whose routing is planted, and of real runs against what they measured."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.analysis.analyze import analyze_run, layer_stacks, observe, write_analysis
from repro.analysis.observer import Observer
from repro.analysis.tally import GROUPS
from repro.analysis.words import LabelledText, labelled_texts, word_marks
from repro.data.corpora import sentiment
from repro.errors import UserError
from repro.moe.backbones import bert
from repro.moe.backbones.base import Stack
from repro.moe.backbones.base import load as load_backbone
from repro.moe.routing import LayerRouting, Routing, RoutingLayer
from repro.results.analysis import ANALYSIS_VERSION, Analysis, Counts, StackAnalysis
from repro.results.files import RunFolder
from repro.results.published import Published
from repro.results.run import read_result
from repro.run.setup import evenly_spread
from repro.tasks import sst2
from repro.tasks.base import load as load_task

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
        self.tape.entries.append(
            LayerRouting(
                self.layer, routing, shape, self.time_major, routing.load_E.sum(), lambda routing: None
            )
        )


class Model(torch.nn.Module):
    """A stack of planted layers."""

    def __init__(self, *rules: Rule, time_major: bool = False) -> None:
        super().__init__()
        layers = [Planted(number, rule, time_major) for number, rule in enumerate(rules)]
        self.stack = torch.nn.ModuleList(layers)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: torch.Tensor) -> None:
        for layer in self.stack:
            layer(input_ids, attention_mask)


class Case:
    """Generated reviews, encoded with a vocabulary that holds every word whole, or few of them."""

    def __init__(self, vocabulary: int) -> None:
        self.rows = sentiment.generate(60, 2)
        sentences = [row["sentence"] for row in self.rows]
        self.tokenizer = bert.train_tokenizer(sentences, vocabulary)
        self.task = sst2.Task(sst2.Config(), self.tokenizer, 128)
        self.features = self.task.encode(self.rows)

    def observe(self, model: Model) -> Observer:
        marks = word_marks(self.tokenizer.get_vocab())
        return observe(
            model,
            self.task,
            self.features,
            layer_stacks({"encoder": Stack(model.stack, lambda call: None)}),
            labels=[LabelledText(labelled_texts(row, ["sentence"]), marks) for row in self.rows],
            batch_size=16,
            device=torch.device("cpu"),
        )

    def observe_stack(self, model: Model) -> StackAnalysis:
        return self.observe(model).stacks()["encoder"]


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
    stack = whole.observe_stack(Model(never, planted_words(whole), time_major=time_major))
    occurrences = Counter(word for row in whole.rows for word in row["sentence"].replace("'s", "' s").split())
    assert set(NEGATIONS) & {row.word for row in stack.words.rows}
    for row in stack.words.rows:
        count = occurrences[row.word]
        multi_L = [0, count if row.word in NEGATIONS else 0]
        assert row.of_occurrences == Counts(count, multi_L)
        assert row.of_tokens[:2] == (count, multi_L)
        assert len(row.tokens_G) == GROUPS


def test_planted_words_are_found_by_category(whole: Case) -> None:
    categories = whole.observe_stack(Model(planted_words(whole))).categories
    labels = Counter(label for row in whole.rows for label in row["categories"])
    planted = sum(row["sentence"].split().count(word) for row in whole.rows for word in NEGATIONS)
    assert set(categories) == set(labels)
    multi = {label: counts.multi_L[0] for label, counts in categories.items()}
    assert multi == dict.fromkeys(labels, 0) | {"negation": planted}
    assert categories["negative"].tokens == labels["negative"]  # each one token
    assert categories["negation"].tokens == labels["negation"]


def test_categories_of_words_in_pieces(pieces: Case) -> None:
    """Whatever the subwords, every token but the special ones has the category of its word."""
    stack = pieces.observe_stack(Model(always))
    tokens = sum(len(feature["input_ids"]) - 2 for feature in pieces.features)
    assert tokens > sum(len(row["categories"]) for row in pieces.rows)
    assert sum(counts.tokens for counts in stack.categories.values()) == tokens
    assert stack.all[:2] == (tokens, [tokens])
    assert stack.all.tokens_G == stack.all.multi_G


def test_a_word_in_pieces_needs_one_of_them(pieces: Case) -> None:
    """The first piece of every word gets two experts: all words do, and as many tokens as words."""
    vocabulary = {number: token for token, number in pieces.tokenizer.get_vocab().items()}

    def first_piece(ids: list[int], place: int) -> bool:
        return not vocabulary[ids[place]].startswith(("##", "["))

    stack = pieces.observe_stack(Model(first_piece))
    words, (multi,), *_ = stack.words.all
    assert words == multi == stack.all.multi_L[0] < stack.all.tokens


def test_planted_positions_are_found(whole: Case) -> None:
    stack = whole.observe_stack(Model(lambda ids, place: place * 10 // len(ids) == 4))
    for tenth, (tokens, (multi,), *_) in enumerate(stack.positions):
        assert multi == (tokens if tenth == 4 else 0)
    assert stack.positions[4].tokens > 0


def test_layers_by_hand(whole: Case) -> None:
    """Special tokens count here: the layer computes them too."""
    layers = whole.observe(Model(never, always)).layers()
    tokens = sum(len(feature["input_ids"]) for feature in whole.features)
    assert [layer.by_count for layer in layers] == [[0, tokens], [0, 0, tokens]]
    assert [layer.multi_expert for layer in layers] == [0, tokens]
    assert [layer.load for layer in layers] == [[0, tokens, 0, 0], [0, tokens, tokens, 0]]
    assert [layer.relative_load for layer in layers] == [[0, 4, 0, 0], [0, 2, 2, 0]]
    assert [layer.load_cv for layer in layers] == pytest.approx([3**0.5, 1])
    assert [layer.clear for layer in layers] == [tokens, 0]
    assert layers[0].mass == pytest.approx([0.1, 0.7, 0.1, 0.1])


@pytest.mark.parametrize("time_major", [False, True])
def test_samples_and_activations(whole: Case, time_major: bool) -> None:
    """Of the first sequence each token with its experts; of the middle layer 64 tokens with all of them."""
    observer = whole.observe(Model(never, planted_words(whole), time_major=time_major))
    sample = observer.samples()[0]["encoder"]
    assert sample.tokens[0] == " [CLS]"
    assert "".join(sample.tokens[1:-1]).split()[0] == whole.rows[0]["sentence"].split()[0]
    for token, experts in zip(sample.tokens, sample.layers["1"], strict=True):
        assert experts == ([(1, 0.4), (2, 0.4)] if token.strip() in NEGATIONS else [(1, 0.7)])
    activations = observer.activations()
    assert activations.layer == 1
    assert 50 < len(activations.tokens) <= 64
    for text, probabilities in activations.tokens:
        assert max(probabilities) == pytest.approx(0.4 if text in NEGATIONS else 0.7)


def test_samples_are_evenly_spread() -> None:
    assert evenly_spread(10, 3) == [0, 3, 6]
    assert evenly_spread(2, 5) == [0, 1]


@pytest.mark.parametrize(
    ("name", "parts_by_stack"),
    [
        ("squad", {"encoder": {"question", "context"}}),
        ("soda", {"decoder": {"context", "response"}}),
        ("wmt19", {"encoder": {"source"}, "decoder": {"target"}}),
        ("sst2", {"encoder": {"text"}}),
        ("arc", {"decoder": {"template", "question", "answer"}}),
    ],
)
def test_parts_cover_every_position_that_a_stack_reads(
    name: str, parts_by_stack: dict[str, set[str]], hand_made: Any
) -> None:
    module = load_task(name)
    rows = hand_made(name, 8)
    texts = [text for row in rows for text in module.texts(row)]
    tokenizer = load_backbone(module.BACKBONE).train_tokenizer(texts, 300)
    task = module.Task(module.Config(**({"stride": 8} if name == "squad" else {})), tokenizer, 96)
    for feature in task.encode(rows):
        inputs, parts = task.inputs(feature), task.parts(feature)
        batch = task.collate([feature])
        masks = task.masks(batch)
        assert set(inputs) == set(parts) == set(masks)
        for stack, ids in inputs.items():
            assert len(parts[stack]) == len(ids) == int(masks[stack].sum())
        assert {stack: set(names) for stack, names in parts.items()} == parts_by_stack
        last = batch["decoder_input_ids"] if "decoder_input_ids" in batch else batch["input_ids"]
        assert last[0].tolist() == list(inputs.values())[-1]


def copy_of_run(made: Any, tmp_path: Path) -> RunFolder:
    """A finished run that may be changed."""
    shutil.copytree(made.results, tmp_path / "results")
    (path,) = (tmp_path / "results").glob("*/runs/*")
    return RunFolder(path)


def test_words_that_a_task_puts_around_its_texts_have_no_category(trained: Any, tmp_path: Path) -> None:
    """The texts between them are found, also one whose beginning was cut off; wrong choices are not read."""
    stack = analyze_run(copy_of_run(trained("adaptive", "arc"), tmp_path)).stacks["decoder"]
    assert set(stack.parts) == {"template", "question", "answer"}
    assert {"answer", "property"} <= set(stack.categories)
    assert "distractor" not in stack.categories
    labelled = sum(counts.tokens for counts in stack.categories.values())
    assert labelled == stack.parts["question"].tokens + stack.parts["answer"].tokens
    assert stack.categories["answer"].tokens == stack.parts["answer"].tokens


@pytest.mark.parametrize("task", ["sst2", "wmt19"])
def test_a_real_run_agrees_with_its_own_evaluation(task: str, trained: Any, tmp_path: Path) -> None:
    folder = copy_of_run(trained("adaptive", task), tmp_path)
    analysis, result = analyze_run(folder), read_result(folder.result)
    assert result.routing_eval is not None
    for layer, evaluated in zip(analysis.layers, result.routing_eval.share_by_count_per_layer, strict=True):
        assert evaluated is not None
        shares = [count / layer.tokens for count in layer.by_count]
        assert shares == pytest.approx(evaluated[: len(shares)], abs=0.01)
    stacks = [layer.stack for layer in analysis.layers]
    assert list(dict.fromkeys(stacks)) == {"sst2": ["encoder"], "wmt19": ["encoder", "decoder"]}[task]
    for stack in analysis.stacks.values():  # every word of the corpus has its label
        assert sum(counts.tokens for counts in stack.categories.values()) == stack.all.tokens
    assert analysis.training.steps[-1] == result.steps


def test_what_is_written(trained: Any, tmp_path: Path) -> None:
    folder = copy_of_run(trained("adaptive"), tmp_path)
    analysis = analyze_run(folder, samples=5)
    assert (analysis.version, analysis.data.sequences) == (ANALYSIS_VERSION, 5)
    data, page = write_analysis(folder, analysis)
    assert Analysis.read(folder.analysis) == analysis
    assert len(analysis.samples) == 5
    published = Published.read(tmp_path / "results" / "mini").analyses[folder.path.name]
    assert published == analysis.model_copy(update={"samples": []})
    assert "samples" not in json.loads(data.read_text(encoding="utf-8"))
    assert folder.path.name in page.read_text(encoding="utf-8")
    assert data.stat().st_size < 300_000


def test_a_damaged_record_of_the_routing_is_named(trained: Any, tmp_path: Path) -> None:
    folder = copy_of_run(trained("adaptive"), tmp_path)
    first, _, rest = folder.routing.read_text(encoding="utf-8").partition("\n")
    folder.routing.write_text(f"{first}\n{{}}\n{rest}", encoding="utf-8")
    with pytest.raises(UserError, match=r"routing\.jsonl: line 2: .*Field required"):
        analyze_run(folder)
