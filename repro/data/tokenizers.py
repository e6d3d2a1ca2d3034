"""Tokenizers trained on a task's training split, cached by what they were trained on."""

from collections.abc import Iterable
from pathlib import Path

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from repro.data.cache import read_entry, scratch_folder, write_entry
from repro.errors import UserError, one_line
from repro.moe import hub
from repro.moe.backbones import base as backbones
from repro.moe.folder import TOKENIZER_FILES, configuration, refuse_tokenizer_code
from repro.provenance import fingerprint_text


def trained_tokenizer(backbone: str, texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer of the backbone's kind on texts, once; after that read it from the cache."""
    texts = list(texts)
    # Raise the number when `train_tokenizer` of a backbone changes.
    recipe = ["1", backbone, str(vocab_size), transformers.__version__, tokenizers.__version__]
    key = fingerprint_text([*recipe, *texts])
    tokenizer = read_entry("tokenizers", key, pretrained_tokenizer)
    if tokenizer is None:
        trained = backbones.load(backbone).train_tokenizer(texts, vocab_size)
        write_entry("tokenizers", key, trained.save_pretrained)
        # Read back also where there is no cache: what is trained with must not depend on that.
        with scratch_folder() as scratch:
            trained.save_pretrained(scratch)
            tokenizer = pretrained_tokenizer(scratch)
    return tokenizer


def pretrained_tokenizer(source: Path | str, where: str = "") -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder or of the hub; without a padding token, the end token pads.

    Args:
        where: the option that named the source, for messages.

    Raises:
        UserError: there is none.
    """
    folder = Path(source) if Path(source).is_dir() else hub.snapshot(str(source), where)
    # A folder without any of these would give an empty tokenizer, and no error.
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"{where}{source}: no tokenizer in it ({', '.join(TOKENIZER_FILES)})")
    refuse_tokenizer_code(folder, where)
    config = configuration(folder, where) if (folder / "config.json").is_file() else None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    except Exception as error:  # damaged files give many types; what is written in Rust raises no subclass
        raise UserError(f"{where}{source}: no tokenizer ({one_line(error)})") from error
    if tokenizer.pad_token is None:  # GPT-2; masks keep padding out of everything
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise UserError(f"{where}{source}: its tokenizer has no token to pad with, and no end token")
    return tokenizer
