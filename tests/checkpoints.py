"""Tiny pretrained models with their tokenizers, one of each family, as `save_pretrained` leaves them."""

import json
import shutil
from pathlib import Path

import torch
import transformers
from rows_by_hand import SENTENCES, rows_of

from repro.moe.backbones import base as backbones
from repro.moe.backbones.bert import train_tokenizer
from repro.tasks import base as tasks


def write_bert(folder: Path) -> Path:
    """Write a tiny BERT, without a head."""
    tokenizer = train_tokenizer([sentence for sentence, _ in SENTENCES * 3], 200)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_bart(folder: Path) -> Path:
    """Write a tiny BART."""
    layers = {
        f"{stack}_{what}": 1 for stack in ("encoder", "decoder") for what in ("layers", "attention_heads")
    }
    sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 24, "max_position_embeddings": 64}
    return _write(folder, "bart", "cnn_dailymail", **layers, **sizes)


def write_gpt2(folder: Path) -> Path:
    """Write a tiny GPT-2 whose tokenizer has no padding token, as on the hub."""
    _write(folder, "gpt2", "soda", n_embd=16, n_layer=2, n_head=2, n_positions=64)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["pad_token"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder


def write_relative(folder: Path, backbone: str, **sizes: int) -> Path:
    """Write a tiny model of Llama or one of its relatives."""
    llama = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return _write(folder, backbone, "soda", **llama | heads | sizes)


def write_fsmt(folder: Path) -> Path:
    """Write a tiny FSMT with a tokenizer as `facebook/wmt19-*` have it: vocabularies of different size."""
    folder.mkdir()
    pairs = [row["translation"] for row in rows_of("wmt19", 24)]
    _write_bpe(
        folder,
        {side: sorted({word for pair in pairs for word in pair[side].split()}) for side in ("de", "en")},
    )
    sizes = [len(json.loads((folder / f"vocab-{name}.json").read_text())) for name in ("src", "tgt")]
    assert sizes[0] != sizes[1]
    torch.manual_seed(7)
    config = transformers.FSMTConfig(
        langs=["de", "en"],
        src_vocab_size=sizes[0],
        tgt_vocab_size=sizes[1],
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=24,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    transformers.FSMTForConditionalGeneration(config).save_pretrained(folder)
    return folder


def put_into_cache(folder: Path, name: str, cache: Path) -> None:
    """Lay a model out as the hub's client keeps it: links to blobs, below the commit."""
    place = cache / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    for part in ("refs", "blobs", f"snapshots/{commit}"):
        (place / part).mkdir(parents=True)
    (place / "refs" / "main").write_text(commit, encoding="utf-8")
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, place / "blobs" / str(number))
        (place / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{number}")


def _write(folder: Path, backbone: str, task: str, **sizes: int) -> Path:
    """Write a tiny model of a family with a tokenizer trained on hand-made rows of a task."""
    family, module = backbones.load(backbone), tasks.load(task)
    texts = [text for row in rows_of(task, 24) for text in module.texts(row)]
    tokenizer = family.train_tokenizer(texts, 300)
    torch.manual_seed(7)
    config = family.CONFIG(**sizes, **family.vocabulary(tokenizer))
    family.HEADS[module.HEAD](config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _write_bpe(folder: Path, words: dict[str, list[str]]) -> None:
    """Write FSMT's tokenizer files: a vocabulary per language, of letters and words, and shared merges.

    A word is put together from its left: `c a`, `ca t</w>`.
    """
    merges: dict[str, None] = {}
    for language, name in (("de", "src"), ("en", "tgt")):
        tokens = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>"])
        for word in words[language]:
            pieces = [*word[:-1], f"{word[-1]}</w>"]
            tokens |= dict.fromkeys(pieces)
            while len(pieces) > 1:
                merges[f"{pieces[0]} {pieces[1]}"] = None
                pieces = [pieces[0] + pieces[1], *pieces[2:]]
                tokens[pieces[0]] = None
        vocabulary = {token: number for number, token in enumerate(tokens)}
        (folder / f"vocab-{name}.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("".join(f"{merge} 1\n" for merge in merges), encoding="utf-8")
    settings = {"langs": ["de", "en"], "model_max_length": 64, "tokenizer_class": "FSMTTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
