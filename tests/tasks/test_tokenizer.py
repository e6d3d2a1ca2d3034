"""Tokenizers trained on a task's texts: cached, repeatable, with BERT's special tokens."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from repro import plugins
from repro.data.cache import cache_folder
from repro.data.tokenizers import trained_tokenizer
from repro.moe.backbones import bert


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The vocabulary sizes that a tokenizer was trained for, in order."""
    sizes: list[int] = []
    train = bert.train_tokenizer

    def counting(texts: Iterable[str], vocab_size: int) -> Any:
        sizes.append(vocab_size)
        return train(texts, vocab_size)

    monkeypatch.setattr(bert, "train_tokenizer", counting)
    return sizes


def texts(seed: int = 1) -> list[str]:
    return [row["sentence"] for row in plugins.load("corpora", "sentiment").generate(200, seed)]


def test_trained_once_then_read_from_the_cache(cache: Path, trainings: list[int]) -> None:
    first = trained_tokenizer("bert", texts(), 200)
    again = trained_tokenizer("bert", iter(texts()), 200)
    assert trainings == [200]
    assert again.get_vocab() == first.get_vocab()
    assert again(texts(2))["input_ids"] == first(texts(2))["input_ids"]
    assert len(list((cache / "tokenizers").iterdir())) == 1  # and no scratch folder is left


def test_another_size_is_another_tokenizer(cache: Path, trainings: list[int]) -> None:
    small, large = trained_tokenizer("bert", texts(), 150), trained_tokenizer("bert", texts(), 200)
    assert trainings == [150, 200]
    assert (len(small), len(large)) == (150, 200)
    assert len(list((cache / "tokenizers").iterdir())) == 2


def test_other_texts_are_another_tokenizer(cache: Path, trainings: list[int]) -> None:
    trained_tokenizer("bert", texts(1), 200)
    trained_tokenizer("bert", texts(2), 200)
    trained_tokenizer("bert", list(reversed(texts(1))), 200)
    assert trainings == [200, 200, 200]


def test_training_from_scratch_gives_the_same_vocabulary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Else two machines, or one after its cache was emptied, train different models from one seed.
    vocabularies = []
    for place in ("one", "two", "three"):
        monkeypatch.setenv("REPRO_CACHE", str(tmp_path / place))
        vocabularies.append(trained_tokenizer("bert", texts(), 200).get_vocab())
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


@pytest.mark.usefixtures("cache")
def test_special_tokens_stand_first_and_around_the_text() -> None:
    tokenizer = trained_tokenizer("bert", texts(), 200)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == specials
    assert tokenizer.pad_token_id == 0
    assert set(tokenizer.all_special_tokens) == set(specials)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("the film is good .")["input_ids"])
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert not set(tokens[1:-1]) & set(specials)
    assert "".join(tokens[1:-1]).replace("##", "") == "thefilmisgood."


@pytest.mark.usefixtures("cache")
def test_a_pair_has_two_segments() -> None:
    tokenizer = trained_tokenizer("bert", texts(), 200)
    encoded = tokenizer("the film", "is good", return_token_type_ids=True)
    ids, segments = encoded["input_ids"], encoded["token_type_ids"]
    first = len(tokenizer("the film")["input_ids"])  # [CLS] the film [SEP]
    assert ids[:first] == tokenizer("the film")["input_ids"]
    assert ids[first:] == tokenizer("is good")["input_ids"][1:]
    assert segments == [0] * first + [1] * (len(ids) - first)


@pytest.mark.usefixtures("cache")
def test_case_is_folded_and_unknown_characters_have_their_token() -> None:
    tokenizer = trained_tokenizer("bert", texts(), 200)
    assert tokenizer("The FILM")["input_ids"] == tokenizer("the film")["input_ids"]
    assert tokenizer("\u4e2d")["input_ids"] == [2, 1, 3]  # [CLS] [UNK] [SEP]


@pytest.mark.usefixtures("cache")
def test_frequent_words_are_one_token() -> None:
    tokenizer = trained_tokenizer("bert", texts(), 1000)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the film is")["input_ids"])[1:-1] == [
        "the",
        "film",
        "is",
    ]


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("REPRO_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "repro"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "repro"
