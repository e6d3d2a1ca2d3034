"""CNN/DailyMail by hand: what is cut, how summaries begin and end, and the limits of beam search."""

from typing import Any

import pytest
import torch
import transformers

from repro.moe.backbones import bart
from repro.tasks import cnn_dailymail

ROWS = [
    {"article": "the cat came home .", "highlights": "cat home .\nall are glad .", "id": "1"},
    {"article": "the cat came home . " * 4, "highlights": "cat", "id": "2"},
    {"article": "no", "highlights": "nothing at all happened here , they say .", "id": "3"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return bart.train_tokenizer([text for row in ROWS for text in cnn_dailymail.texts(row)] * 3, 320)


def task(tokenizer: Any, max_length: int = 100, **options: Any) -> cnn_dailymail.Task:
    return cnn_dailymail.Task(cnn_dailymail.Config(**options), tokenizer, max_length)


class TestEncoding:
    def test_texts_are_framed_and_keep_their_line_breaks(self, tokenizer: Any) -> None:
        for feature, row in zip(task(tokenizer).encode(ROWS), ROWS, strict=True):
            assert tokenizer.decode(feature["input_ids"]) == f"<s>{row['article']}</s>"
            assert tokenizer.decode(feature["labels"]) == f"<s>{row['highlights']}</s>"
            assert feature["cut"] is False

    def test_source_and_target_are_cut_at_their_ends(self, tokenizer: Any) -> None:
        whole = task(tokenizer).encode(ROWS)
        sizes = [(len(feature["input_ids"]), len(feature["labels"])) for feature in whole]
        assert sizes[1][0] > sizes[0][0]
        assert sizes[2][1] > sizes[0][1]
        # As long as the first row: of the second the source is cut, of the third the target.
        features = task(tokenizer, sizes[0][0], max_target_length=sizes[0][1]).encode(ROWS)
        assert [feature["cut"] for feature in features] == [False, True, True]
        assert features[1]["input_ids"] == [*whole[1]["input_ids"][: sizes[0][0] - 1], tokenizer.eos_token_id]
        assert features[1]["labels"] == whole[1]["labels"]
        assert features[2]["labels"] == [*whole[2]["labels"][: sizes[0][1] - 1], tokenizer.eos_token_id]

    def test_the_decoder_starts_from_the_end_token(self, tokenizer: Any) -> None:
        made = task(tokenizer)
        features = made.encode(ROWS[:1])
        batch = made.collate(features)
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        assert batch["decoder_input_ids"][0, :2].tolist() == [end, begin]
        assert batch["labels"][0, [0, -1]].tolist() == [begin, end]

    def test_references_are_the_highlights(self, tokenizer: Any) -> None:
        found, references = task(tokenizer).answers(["a", "b", "c"], [], ROWS)
        assert found == ["a", "b", "c"]
        assert references == [row["highlights"] for row in ROWS]


@pytest.fixture
def model(tokenizer: Any) -> Any:
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 100}
    layers = {
        f"{stack}_{what}": 1 for stack in ("encoder", "decoder") for what in ("layers", "attention_heads")
    }
    torch.manual_seed(0)
    config = transformers.BartConfig(**sizes, **layers, **bart.vocabulary(tokenizer))
    return transformers.BartForConditionalGeneration(config).eval()


def preferring(model: Any, tokens: list[int]) -> Any:
    """The model, made to find these tokens more probable than all others, the first most."""
    for place, token in enumerate(tokens):
        model.final_logits_bias[0, token] = 100.0 - 10 * place
    return model


def predicted(model: Any, tokenizer: Any, **options: Any) -> list[list[int]]:
    """Ids of the summaries, without special tokens."""
    made = task(tokenizer, **options)
    features = made.encode(ROWS[:2])
    with torch.no_grad():
        texts = made.predict(model, made.collate(features), None, features)
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def letters(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(text))
    return ids


class TestGeneration:
    def test_defaults(self) -> None:
        assert cnn_dailymail.Config().generation() == {
            "num_beams": 4,
            "length_penalty": 1.0,
            "min_new_tokens": None,
            "no_repeat_ngram_size": 0,
        }

    @pytest.mark.parametrize("limit", [4, 9])
    def test_longest_summary(self, model: Any, tokenizer: Any, limit: int) -> None:
        """`<s>` is one of the tokens, and so is an end that may be forced on the last place."""
        (x,) = letters(tokenizer, "x")
        found = predicted(preferring(model, [x]), tokenizer, max_target_length=limit, beams=2)
        for ids in found:
            assert ids in ([x] * (limit - 2), [x] * (limit - 1))

    def test_an_empty_summary(self, model: Any, tokenizer: Any) -> None:
        assert predicted(preferring(model, [tokenizer.eos_token_id]), tokenizer, beams=2) == [[], []]

    @pytest.mark.parametrize("least", [3, 7])
    def test_shortest_summary(self, model: Any, tokenizer: Any, least: int) -> None:
        """One that ends as soon as it may: `<s>`, then x in the place of every end that is forbidden."""
        end, (x,) = tokenizer.eos_token_id, letters(tokenizer, "x")
        found = predicted(
            preferring(model, [end, x]), tokenizer, beams=2, min_target_length=least, max_target_length=20
        )
        assert found == [[x] * (least - 1)] * 2

    def test_no_repeated_words(self, model: Any, tokenizer: Any) -> None:
        x, y, z = letters(tokenizer, "xyz")
        wanted = preferring(model, [x, y, z])
        options = {"beams": 1, "max_target_length": 6}
        assert [ids[:4] for ids in predicted(wanted, tokenizer, **options)] == [[x, x, x, x]] * 2
        no_pairs = predicted(wanted, tokenizer, no_repeat_ngram=2, **options)
        assert [ids[:4] for ids in no_pairs] == [[x, x, y, x]] * 2
        assert predicted(wanted, tokenizer, no_repeat_ngram=1, **options)[0][:3] == [x, y, z]

    def test_settings_of_a_checkpoint_do_not_count(self, model: Any, tokenizer: Any) -> None:
        # as `min_length` and `early_stopping` of bart-large-cnn; the recorded options then do not tell
        # what was done.
        model.generation_config.min_length = 7
        assert predicted(preferring(model, [tokenizer.eos_token_id]), tokenizer, beams=2) == [[], []]


class TestProblem:
    @pytest.mark.parametrize("column", ["article", "highlights"])
    @pytest.mark.parametrize("value", [None, "", "  \n", 7, ["a"]])
    def test_empty_or_no_text(self, column: str, value: object) -> None:
        assert cnn_dailymail.problem(ROWS[0] | {column: value}) == f"{column} {str(value)!r} is not text"

    def test_none(self) -> None:
        assert cnn_dailymail.problem({"article": "a", "highlights": "b"}) is None
