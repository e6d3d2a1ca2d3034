"""Save and load states without pickled code, and tell whether a file is what was written."""

import errno
import hashlib
import io
import os
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from repro.errors import one_line

UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    SafetensorError,
    pickle.UnpicklingError,
)
"""What libraries raise for a file that holds something else."""


def save_states(states: dict[str, Any], path: Path) -> None:
    """Save plain data and tensors.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("wb") as stream:
        try:
            torch.save(states, stream)
        except RuntimeError as error:  # torch's own writer says so when the disk is full
            raise OSError(errno.EIO, one_line(error), str(path)) from error


def load_states(path: Path) -> dict[str, Any]:
    """Load plain data and tensors; code in the file is never run.

    Raises:
        one of `UNREADABLE`: it holds something else.
    """
    return _load(path)


def _load(source: Path | io.BytesIO) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of foreign pickles before it refuses them
        states: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    return states


def random_states() -> dict[str, Any]:
    """Return the states of all random generators of this process, as plain data and tensors."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore what `random_states` returned."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def synchronise(path: Path) -> None:
    """Have the system write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_sealed(states: dict[str, Any], path: Path) -> None:
    """Save plain data and tensors behind their digest.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(states, buffer)
    content = buffer.getvalue()
    path.write_bytes(hashlib.sha256(content).digest() + content)


def load_sealed(path: Path) -> dict[str, Any] | None:
    """Load what `save_sealed` wrote; None if there is no such file, or it is damaged."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    digest, content = data[:32], data[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        return _load(io.BytesIO(content))
    except UNREADABLE:
        return None
