"""WMT19 by hand: directions, the shift of targets, beam search, and FSMT's own tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from repro.data.tokenizers import pretrained_tokenizer
from repro.moe.backbones import fsmt
from repro.tasks import wmt19

ROWS = [
    {"translation": {"de": "die Katze schläft .", "en": "the cat sleeps ."}},
    {"translation": {"de": "der Hund bellt im großen Garten .", "en": "the dog barks in the big garden ."}},
    {"translation": {"de": "ja", "en": "yes it is so , all of it"}},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return fsmt.train_tokenizer([text for row in ROWS for text in wmt19.texts(row)] * 3, 330)


def task(tokenizer: Any, max_length: int = 64, **options: Any) -> wmt19.Task:
    return wmt19.Task(wmt19.Config(**options), tokenizer, max_length)


class TestEncoding:
    @pytest.mark.parametrize("direction", ["de-en", "en-de"])
    def test_direction(self, tokenizer: Any, direction: Any) -> None:
        source, target = direction.split("-")
        made = task(tokenizer, direction=direction)
        features = made.encode(ROWS)
        for feature, row in zip(features, ROWS, strict=True):
            pair = row["translation"]
            assert tokenizer.decode(feature["input_ids"]) == f"{pair[source]}</s>"
            assert tokenizer.decode(feature["labels"]) == f"{pair[target]}</s>"
            assert feature["cut"] is False
        answers = made.answers(["x", "y", "z"], features, ROWS)
        assert answers == (["x", "y", "z"], [row["translation"][target] for row in ROWS])

    def test_the_default_is_the_direction_of_table_2(self) -> None:
        assert wmt19.Config().direction == "de-en"

    def test_cut_sources_and_targets_keep_their_end(self, tokenizer: Any) -> None:
        rows = [*ROWS[:2], {"translation": {"de": "ja", "en": "yes"}}]
        whole = task(tokenizer).encode(rows)
        sizes = [(len(feature["input_ids"]), len(feature["labels"])) for feature in whole]
        # Exactly as long as the first row: it is whole, as is the last, and the second is cut on both sides.
        features = task(tokenizer, sizes[0][0], max_target_length=sizes[0][1]).encode(rows)
        assert [feature["cut"] for feature in features] == [False, True, False]
        for feature, full in zip(features, whole, strict=True):
            for key, limit in zip(("input_ids", "labels"), sizes[0], strict=True):
                kept = min(limit, len(full[key])) - 1
                assert feature[key] == [*full[key][:kept], tokenizer.eos_token_id]

    def test_either_side_alone_counts_as_cut(self, tokenizer: Any) -> None:
        assert [feature["cut"] for feature in task(tokenizer, 6).encode(ROWS[2:])] == [False]
        assert [feature["cut"] for feature in task(tokenizer, max_target_length=4).encode(ROWS[2:])] == [True]
        swapped = task(tokenizer, 4, direction="en-de").encode(ROWS[2:])
        assert [feature["cut"] for feature in swapped] == [True]

    def test_the_decoder_reads_the_target_from_the_end_token_on(self, tokenizer: Any) -> None:
        made = task(tokenizer)
        features = made.encode([ROWS[0], ROWS[2]])
        batch = made.collate(features)
        end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        assert (end, pad) == (2, 1)
        width = batch["labels"].shape[1]
        for row, feature in enumerate(features):
            target = feature["labels"]
            empty = width - len(target)
            assert target[-1] == end
            assert batch["labels"][row].tolist() == target + [-100] * empty
            assert batch["decoder_input_ids"][row].tolist() == [end, *target[:-1]] + [pad] * empty
            assert batch["decoder_attention_mask"][row].tolist() == [1] * len(target) + [0] * empty
        assert made.loss_terms(batch) == sum(len(feature["labels"]) for feature in features)

    def test_length_is_that_of_the_longer_side(self, tokenizer: Any) -> None:
        made = task(tokenizer)
        features = [{"input_ids": [5] * 3, "labels": [5] * 7}, {"input_ids": [5] * 9, "labels": [5]}]
        assert [made.length(feature) for feature in features] == [7, 9]


class Spy:
    """Stands for a model: keeps what it was asked to generate, and gives back fixed ids."""

    def __init__(self, ids: list[list[int]]) -> None:
        self.ids = ids

    def generate(self, **asked: Any) -> torch.Tensor:
        self.asked = asked
        return torch.tensor(self.ids)


def always(model: Any, token: int) -> Any:
    """The model, made to find one token far more probable than all others."""

    def prefer(module: Any, args: Any, output: Any) -> None:
        output.logits[..., token] += 100.0

    model.register_forward_hook(prefer)
    return model


def tiny(tokenizer: Any) -> Any:
    config = transformers.FSMTConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        **fsmt.vocabulary(tokenizer),
    )
    torch.manual_seed(0)
    return transformers.FSMTForConditionalGeneration(config).eval()


class TestGeneration:
    def test_what_is_asked_for(self, tokenizer: Any) -> None:
        made = task(tokenizer, beams=3, length_penalty=0.5, max_target_length=9)
        features = made.encode(ROWS[:1])
        batch = made.collate(features)
        end = tokenizer.eos_token_id
        spy = Spy([[end, *tokenizer("yes")["input_ids"], tokenizer.pad_token_id]])
        assert made.predict(spy, batch, None, features) == ["yes"]
        settings = spy.asked["generation_config"]
        assert (settings.num_beams, settings.length_penalty, settings.max_new_tokens) == (3, 0.5, 9)
        assert (settings.decoder_start_token_id, settings.eos_token_id) == (end, end)
        assert settings.pad_token_id == tokenizer.pad_token_id
        assert settings.forced_bos_token_id is None  # FSMT's targets begin with their first word
        assert settings.do_sample is False
        # The target is not shown.
        assert set(spy.asked) == {"input_ids", "attention_mask", "generation_config"}

    def test_five_beams_by_default(self) -> None:
        assert wmt19.Config().generation() == {"num_beams": 5, "length_penalty": 1.0}

    def test_predictions_are_texts_without_special_tokens(self, tokenizer: Any) -> None:
        made = task(tokenizer, max_target_length=8, beams=2)
        features = made.encode(ROWS)
        batch = made.collate(features)
        with torch.no_grad():
            found = made.predict(tiny(tokenizer), batch, None, features)
        assert len(found) == 3
        for text in found:
            assert text == text.strip()
            assert not any(token in text for token in tokenizer.all_special_tokens)

    @pytest.mark.parametrize("beams", [1, 2])
    @pytest.mark.parametrize("limit", [4, 11])
    def test_no_longer_than_the_limit(self, tokenizer: Any, beams: int, limit: int) -> None:
        """A model that never ends by itself; the last token may be an end that is forced on it."""
        (letter,) = tokenizer("y", add_special_tokens=False)["input_ids"]
        made = task(tokenizer, max_target_length=limit, beams=beams)
        features = made.encode(ROWS[:2])
        endless = always(tiny(tokenizer), letter)
        with torch.no_grad():
            found = made.predict(endless, made.collate(features), None, features)
        for text in found:
            assert text in ("y" * (limit - 1), "y" * limit)

    def test_a_model_may_stop_at_once(self, tokenizer: Any) -> None:
        made = task(tokenizer, beams=2)
        features = made.encode(ROWS[:2])
        stopping = always(tiny(tokenizer), tokenizer.eos_token_id)
        with torch.no_grad():
            assert made.predict(stopping, made.collate(features), None, features) == ["", ""]


class TestOwnTokenizer:
    """FSMT's checkpoints have a vocabulary for each language."""

    @pytest.fixture
    def own(self, fsmt_folder: Path) -> Any:
        return pretrained_tokenizer(fsmt_folder)

    @pytest.fixture
    def vocabularies(self, fsmt_folder: Path) -> list[dict[str, int]]:
        return [
            json.loads((fsmt_folder / f"vocab-{name}.json").read_text(encoding="utf-8"))
            for name in ("src", "tgt")
        ]

    def test_the_folder_is_accepted(self, own: Any) -> None:
        assert type(own).__name__ == "FSMTTokenizer"

    def test_targets_have_the_ids_of_their_own_vocabulary(
        self, own: Any, vocabularies: list[dict[str, int]]
    ) -> None:
        # that of the target.
        row = {"translation": {"de": "Seit 1900 schläft die Katze .", "en": "Since 1900 the cat sleeps ."}}
        (feature,) = task(own).encode([row])
        source, target = (row["translation"][side].split() for side in ("de", "en"))
        for ids, words, vocabulary in zip(
            (feature["input_ids"], feature["labels"]), (source, target), vocabularies, strict=True
        ):
            expected = [vocabulary[f"{word}</w>"] for word in words]
            assert ids == [*expected, vocabulary["</s>"]]
        assert feature["cut"] is False
        assert own.decode(feature["labels"], skip_special_tokens=True) == "Since 1900 the cat sleeps."

    def test_batches(self, own: Any) -> None:
        made = task(own)
        features = made.encode([{"translation": {"de": "die Katze", "en": "the cat"}}])
        batch = made.collate(features)
        assert batch["decoder_input_ids"][0, 0] == 2
        assert batch["labels"][0, -1] == 2


class TestProblem:
    @pytest.mark.parametrize(
        "value",
        [
            None,
            "ja",
            ["ja", "yes"],
            {},
            {"de": "ja"},
            {"en": "yes"},
            {"de": "ja", "en": None},
            {"de": 1, "en": "a"},
        ],
    )
    def test_no_pair_of_texts(self, value: object) -> None:
        problem = wmt19.problem({"translation": value})
        assert problem == "translation is not an object with the texts 'de' and 'en'"

    @pytest.mark.parametrize("side", ["de", "en"])
    @pytest.mark.parametrize("text", ["", " ", "\n"])
    def test_empty(self, side: str, text: str) -> None:
        pair = {"de": "ja", "en": "yes"} | {side: text}
        assert wmt19.problem({"translation": pair}) == f"translation {side!r} is empty"

    def test_further_languages_do_not_matter(self) -> None:
        assert wmt19.problem({"translation": {"de": "ja", "en": "yes", "fr": ""}}) is None
