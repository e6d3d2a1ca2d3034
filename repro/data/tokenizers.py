"""Tokenizers trained on a task's training split, cached by what they were trained on."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from repro.errors import UserError, one_line
from repro.moe.backbones import base as backbones
from repro.provenance import fingerprint_text

# A folder without any of these would give an empty tokenizer, and no error.
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "vocab-src.json")


def cache_folder() -> Path:
    """Return `$REPRO_CACHE`, or `repro` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("REPRO_CACHE") or Path(home) / "repro")


def trained_tokenizer(backbone: str, texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer of the backbone's kind on texts, once; after that read it from the cache."""
    texts = list(texts)
    # Raise the number when `train_tokenizer` of a backbone changes.
    recipe = ["1", backbone, str(vocab_size), transformers.__version__, tokenizers.__version__]
    name = fingerprint_text([*recipe, *texts])
    folder = cache_folder() / "tokenizers" / name
    if not folder.exists():
        tokenizer = backbones.load(backbone).train_tokenizer(texts, vocab_size)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            tokenizer.save_pretrained(Path(scratch) / name)
            try:
                (Path(scratch) / name).rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another process was faster
                    raise
    return pretrained_tokenizer(folder)


def pretrained_tokenizer(source: Path | str, where: str = "") -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder or of the hub; without a padding token, the end token pads.

    Args:
        where: the option that named the source, for messages.

    Raises:
        UserError: there is none.
    """
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(f"{where}{source}: no tokenizer in it ({', '.join(_TOKENIZER_FILES)})")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{where}{source}: no tokenizer ({one_line(error)})") from error
    if tokenizer.pad_token is None:  # GPT-2; masks keep padding out of everything
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
