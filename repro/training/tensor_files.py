"""Tensors of a model and its optimizer on the disk, whoever holds them.

They are safetensors, written by PyTorch's distributed checkpointing: every process writes what it holds, and
reads what it needs, so they are the same for any number of processes.
Nothing is pickled: the places of shards stand in the headers of the files.
"""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim import Optimizer

from repro.errors import one_line

if TYPE_CHECKING:
    from repro.training.placement import Placement


def save_tensors(placement: Placement, optimizer: Optimizer, folder: Path) -> None:
    """Write the tensors of a model and its optimizer; every process of the launch has to.

    Raises:
        OSError: a file cannot be written.
    """
    states = _model_tensors(placement) | _optimizer_tensors(placement, optimizer)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _quiet():
        try:
            dcp.save(states, storage_writer=writer, no_dist=placement.processes == 1)
        except (dcp.api.CheckpointException, RuntimeError, SafetensorError) as error:
            raise OSError(errno.EIO, one_line(error)[:200], str(folder)) from error


def load_tensors(placement: Placement, optimizer: Optimizer, folder: Path) -> None:
    """Read what `save_tensors` wrote into a model and its optimizer, in place.

    Raises:
        one of `state_files.UNREADABLE`: the files hold something else, or tensors of other sizes.
    """
    reader = HuggingFaceStorageReader(str(folder))
    saved = set(reader.read_metadata().state_dict_metadata)
    _make_room(placement, optimizer, saved)
    states = _model_tensors(placement) | _optimizer_tensors(placement, optimizer)
    if set(states) != saved:
        differing = sorted(set(states) ^ saved)
        raise ValueError(f"{len(differing)} tensors are missing or too many, as {differing[0]!r}")
    with _quiet():
        try:
            dcp.load(states, storage_reader=reader, no_dist=placement.processes == 1)
        except (dcp.api.CheckpointException, AssertionError) as error:
            raise ValueError(one_line(error)[:200]) from error


def whole_tensors(placement: Placement) -> dict[str, Tensor]:
    """Collect the whole tensors of a model, by their names, on the CPU; every process has to.

    Returns:
        The tensors, in the first process; nothing in the others.
    """
    whole = {}
    for name, tensor in _model_tensors(placement).items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if placement.accelerator.is_main_process:
            whole[name.removeprefix(_MODEL)] = gathered.detach().cpu()
    return whole


_MODEL, _OPTIMIZER = "model.", "optimizer."


def _model_tensors(placement: Placement) -> dict[str, Tensor]:
    """Name the parameters, tied ones once, and the buffers that are saved."""
    model, spread = placement.plain, set(placement.spread_parameters())
    parameters = {
        name: _shard(parameter.detach(), placement) if parameter in spread else parameter.detach()
        for name, parameter in model.named_parameters()
    }
    every_name = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in every_name}
    return {_MODEL + name: tensor for name, tensor in (parameters | buffers).items()}


def _optimizer_tensors(placement: Placement, optimizer: Optimizer) -> dict[str, Tensor]:
    """Name the states of the parameters; a parameter that has had no gradient has none."""
    spread = set(placement.spread_parameters())
    states = {}
    for name, parameter in placement.plain.named_parameters():
        for key, tensor in optimizer.state.get(parameter, {}).items():
            is_shard = parameter in spread and tensor.dim() > 0
            states[f"{_OPTIMIZER}{name}.{key}"] = _shard(tensor, placement) if is_shard else tensor
    return states


def _shard(tensor: Tensor, placement: Placement) -> Tensor:
    """Say of which whole tensor this is a part."""
    assert placement.mesh is not None
    return DTensor.from_local(tensor, placement.mesh, [Replicate(), Shard(0)], run_check=False)


def _make_room(placement: Placement, optimizer: Optimizer, saved: set[str]) -> None:
    """Give an optimizer the states that are to be read, and take away others."""
    for name, parameter in placement.plain.named_parameters():
        if f"{_OPTIMIZER}{name}.step" not in saved:
            optimizer.state.pop(parameter, None)
        elif not optimizer.state.get(parameter):
            optimizer.state[parameter] = {
                # On the device, as fused AdamW has it.
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the library says of launches of one process."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
