"""Folders that hold a model: which of their files are read, and what they may say.

Nothing in such a folder is trusted. Of `config.json` only entries are taken over that the class of a family
has, no code is run, and weights are tensors in files of the folder itself.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from repro import plugins
from repro.checks import PlainName, shown, spelled
from repro.errors import UserError, named_line, notice, one_line, unknown
from repro.moe.backbones import base as backbones
from repro.moe.backbones.base import Backbone
from repro.moe.options import MAX_LAYERS, option_defaults, wrong_number
from repro.provenance import fingerprint_files
from repro.results.base import Record, parse_object, read_bytes

CONFIG_KEY = "repro_moe"
"""Where the settings stand in a converted model's `config.json`."""
OWN_TYPE = "repro-"
"""What stands before the family in the `model_type` of a converted model."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "vocab-src.json")
"""A folder without any of these holds no tokenizer."""
_PARTS = (".json", ".txt", ".model", ".safetensors")
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_NOT_TAKEN = {
    "_name_or_path",
    "chunk_size_feed_forward",
    "dtype",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "transformers_version",
}
"""Entries of every configuration that say how a model is called or was made, and not what it is."""
_ALSO_TAKEN = {"head_dim", "rope_scaling", "rope_theta"}
"""Entries that models read, or older versions wrote, though the class of the family does not name them."""


class WeightIndex(Record):
    """`<weights>.index.json`: which file of the folder holds which weight."""

    model_config = ConfigDict(extra="ignore")

    weight_map: dict[str, PlainName]


def fingerprint_model(folder: Path) -> str:
    """Return 16 hex digits over the files of a model: weights, configuration, tokenizer.

    Raises:
        UserError: a file cannot be read.
    """
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
        chosen = [path for path in files if path.suffix in _PARTS]
        if not any(path.suffix == ".safetensors" for path in chosen):
            chosen += [path for path in files if path.suffix == ".bin"]
        return fingerprint_files(chosen)
    except OSError as error:
        raise UserError(f"--model {error.filename or folder}: cannot be read ({error.strerror})") from error


def read_configuration(folder: Path, where: str = "") -> dict[str, Any]:
    """Read `config.json`, of which nothing is checked yet.

    Args:
        where: the option that named the folder, for messages.

    Raises:
        UserError: it is not there, or no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{where}{folder}: not a saved model (no config.json in it)")
    return dict(parse_object(read_bytes(path), f"{where}{path}"))


def family_of(plain: Mapping[str, Any], folder: Path, where: str = "") -> Backbone:
    """Return the family of the model that a `config.json` describes.

    Raises:
        UserError: it is of none.
    """
    families = {name: backbones.load(name) for name in plugins.names("backbones")}
    model_type = plain.get("model_type")
    found = [
        backbone
        for backbone in families.values()
        if model_type in (backbone.MODEL_TYPE, OWN_TYPE + backbone.MODEL_TYPE)
    ]
    code = "code that its config.json names (auto_map) is not run" if "auto_map" in plain else ""
    if not found:
        reason = unknown("model_type", spelled(str(model_type)), families)
        way = " A new family is one file in repro/moe/backbones/, after the contract in its base.py."
        raise UserError(f"{where}{folder}: {reason}{way}{code and f' And {code}.'}")
    if code:
        notice(f"{where}{folder}: {code}")
    return found[0]


def configuration(
    folder: Path, where: str = "", options: Mapping[str, Any] | None = None
) -> PreTrainedConfig:
    """Return the Hugging Face configuration of the model in a folder.

    Args:
        where: the option that named the folder, for messages.
        options: entries that take the place of those in the folder.

    Raises:
        UserError: it is not there, of no family here, or the library refuses it.
    """
    plain = read_configuration(folder, where)
    backbone = family_of(plain, folder, where)
    if plain["model_type"] != backbone.MODEL_TYPE and CONFIG_KEY not in plain:
        raise UserError(f"{where}{folder}: not a saved model (no {CONFIG_KEY} in config.json)")
    aliases, defaults = backbone.CONFIG.attribute_map, backbone.CONFIG().to_dict()
    taken = {aliases[name]: value for name, value in plain.items() if name in aliases}
    known = {*defaults, *_ALSO_TAKEN, CONFIG_KEY} - _NOT_TAKEN
    taken |= {name: plain[name] for name in plain if name in known}
    taken |= options or {}
    for entry in backbone.STACKS.values():
        layers = taken.get(entry, defaults[entry])
        if type(layers) is not int or not 1 <= layers <= MAX_LAYERS:
            wrong = f"{entry}: expected 1 to {MAX_LAYERS} layers, got {shown(layers)}"
            raise UserError(f"{where}{folder}: config.json: {wrong}")
    for name in taken.keys() & option_defaults(backbone).keys():
        problem = wrong_number(backbone, name, taken[name]) if type(taken[name]) is int else None
        if problem:
            raise UserError(f"{where}{folder}: config.json: {name}: {problem}")
    try:
        return backbone.CONFIG(**taken)
    except Exception as error:  # the library refuses values with many types
        raise UserError(f"{where}{folder}: config.json: {named_line(error)[:300]}") from error


def refuse_tokenizer_code(folder: Path, where: str = "") -> None:
    """Refuse a tokenizer that is code of its folder, or not one of the library's tokenizers.

    Raises:
        UserError: it is.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    plain = parse_object(read_bytes(path), f"{where}{path}")
    if "auto_map" in plain:
        raise UserError(f"{where}{path}: names code of the folder (auto_map), which is not run; no tokenizer")
    # The library looks the name up among all that it has, and some of that loads code of the folder.
    name = plain.get("tokenizer_class")
    found = getattr(transformers, str(name), PreTrainedTokenizerBase)
    if not (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase)):
        raise UserError(f"{where}{path}: tokenizer_class {spelled(str(name))} is no tokenizer")


def weight_files(folder: Path, where: str = "", *, pickled: bool) -> list[Path]:
    """Return the files of a model's weights; there may be none of a name.

    Args:
        where: the option that named the folder, for messages.
        pickled: whether tensors pickled by torch will do where there are no safetensors.

    Raises:
        UserError: an index is broken, or names a file that is not in the folder.
    """
    names = (_SAFE, _PICKLED) if pickled else (_SAFE,)
    for name in names:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            weight_map = WeightIndex.parse(read_bytes(index), f"{where}{index}").weight_map
            return [folder / shard for shard in sorted(set(weight_map.values()))]
    raise UserError(f"{where}{folder}: no weights in it ({' or '.join(names)})")


def read_weights(folder: Path, where: str = "", *, pickled: bool = False) -> dict[str, Tensor]:
    """Read the weights of a model.

    Args:
        where: the option that named the folder, for messages.
        pickled: as in `weight_files`. Of a pickle nothing but tensors is loaded, and no code is run.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder, where, pickled=pickled):
        try:
            weights |= load_file(path) if path.suffix == ".safetensors" else _unpickled(path, where)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{where}{path}: cannot be read ({one_line(error)[:200]})") from error
    return weights


def _unpickled(path: Path, where: str) -> dict[str, Tensor]:
    """Read tensors pickled by torch; its unpickler knows tensors and refuses everything else.

    Raises:
        UserError: the file holds something else.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of protocols; what cannot be read is refused
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{where}{path}: holds more than tensors, which could be code; it is not loaded"
        ) from error
    except (EOFError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{where}{path}: cannot be read ({named_line(error)[:200]})") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{where}{path}: expected tensors by name")
    return weights
