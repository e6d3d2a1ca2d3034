"""The Hugging Face hub: its models, found in its cache on this machine or fetched into it once.

All that is read afterwards is the folder of a snapshot: a model of the hub takes the way of one in a folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from repro.errors import UserError, named_line
from repro.moe.folder import TOKENIZER_FILES, weight_files

_CONFIG = "config.json"
_PARTS = ["*.json", "*.txt", "*.model", "model*.safetensors"]
_PICKLED = ["pytorch_model*.bin"]
"""Weights that are fetched where a model has no safetensors."""
_PATIENCE = 4
"""Seconds in which the hub must answer."""


def snapshot(name: str, where: str = "") -> Path:
    """Return the folder of a model of the hub. A whole one in the cache is taken as it is, without a network.

    Args:
        where: the option that named it, for messages.

    Raises:
        UserError: it is not in the cache, and cannot be fetched.
    """
    with _said(name, where):
        folder = _cached(name)
        if folder is None or not _is_whole(folder):
            folder = _fetched(name, _PARTS)
        if not _has_weights(folder):
            folder = _fetched(name, _PICKLED)
    return folder


def configuration_folder(name: str, where: str = "") -> Path:
    """Return a folder with the `config.json` of a model of the hub, and perhaps nothing else.

    Args:
        where: the option that named it, for messages.

    Raises:
        UserError: it is not in the cache, and cannot be fetched.
    """
    with _said(name, where):
        return _cached(name) or _fetched(name, [_CONFIG])


@contextmanager
def _said(name: str, where: str) -> Iterator[None]:
    """Say in one line why a model cannot be had.

    Raises:
        UserError: it cannot.
    """
    try:
        yield
    except HFValidationError as error:
        raise UserError(f"{where}{name}: no such folder, and no name of a model of the hub") from error
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{where}{name}: no such folder, not in the cache of the hub ({constants.HF_HUB_CACHE}), and"
            " the hub cannot be reached; give a folder with --model DIR, or set HF_HOME to where it is cached"
        ) from error
    except Exception as error:  # the hub's client raises dozens of types, of several libraries
        raise UserError(
            f"{where}{name}: cannot be fetched from the hub ({named_line(error)[:200]})"
        ) from error


def _cached(name: str) -> Path | None:
    """Return the folder of a model in the cache, which may lack files; None if there is none."""
    found = huggingface_hub.try_to_load_from_cache(name, _CONFIG)
    return Path(found).parent if isinstance(found, str) else None


def _fetched(name: str, patterns: list[str]) -> Path:
    with only_if_it_answers():
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))


def _is_whole(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES) and _has_weights(folder)


def _has_weights(folder: Path) -> bool:
    try:
        return all(path.is_file() for path in weight_files(folder, pickled=True))
    except UserError:
        return False


@contextmanager
def only_if_it_answers() -> Iterator[None]:
    """Let libraries look into their caches alone where the hub does not answer.

    They would ask it again and again for half a minute, and print every time that they did.
    """
    if constants.HF_HUB_OFFLINE or _answers():
        yield
        return
    import datasets

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _answers() -> bool:
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # the client raises dozens of types, of several libraries
        return False
    return True
