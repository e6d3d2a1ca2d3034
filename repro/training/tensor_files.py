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
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim import Optimizer

from repro.errors import one_line
from repro.moe.lora import experts_last

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
            save(states, storage_writer=writer, no_dist=placement.processes == 1)
        except (CheckpointException, RuntimeError, SafetensorError) as error:
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
            load(states, storage_reader=reader, no_dist=placement.processes == 1)
        except (CheckpointException, AssertionError) as error:
            raise ValueError(one_line(error)[:200]) from error


def whole_tensors(placement: Placement) -> dict[str, Tensor]:
    """Collect the whole tensors of a model, by their names, on the CPU; every process has to.

    Returns:
        The tensors, tied ones under each of their names, in the first process; nothing in the others.
    """
    whole: dict[str, Tensor] = {}
    for name, tensor in _model_tensors(placement).items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if placement.accelerator.is_main_process:
            whole[name.removeprefix(_MODEL)] = gathered.detach().cpu()
    if whole:
        first = {parameter: name for name, parameter in placement.plain.named_parameters()}
        for name, parameter in placement.plain.named_parameters(remove_duplicate=False):
            whole[name] = whole[first[parameter]]
    return whole


_MODEL, _OPTIMIZER = "model.", "optimizer."


def _model_tensors(placement: Placement) -> dict[str, Tensor]:
    """Name the parameters, tied ones once, and the buffers that are saved."""
    model, laid_out = placement.plain, _Layout(placement)
    parameters = {
        name: laid_out(parameter.detach(), parameter) for name, parameter in model.named_parameters()
    }
    every_name = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in every_name}
    return {_MODEL + name: tensor for name, tensor in (parameters | buffers).items()}


def _optimizer_tensors(placement: Placement, optimizer: Optimizer) -> dict[str, Tensor]:
    """Name the states of the parameters; a parameter that has had no gradient has none."""
    laid_out = _Layout(placement)
    states = {}
    for name, parameter in placement.plain.named_parameters():
        for key, tensor in optimizer.state.get(parameter, {}).items():
            states[f"{_OPTIMIZER}{name}.{key}"] = laid_out(tensor, parameter) if tensor.dim() > 0 else tensor
    return states


class _Layout:
    """How tensors lie in files: those of experts by their experts, whole or a part."""

    def __init__(self, placement: Placement) -> None:
        self._mesh = placement.mesh
        self._spread = set(placement.spread_parameters())
        self._experts_last = experts_last(placement.plain)

    def __call__(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """Lay out a parameter or one of its moments; the memory stays the same."""
        axis, experts = 0, self._experts_last.get(parameter)
        if experts is not None:
            # Of (out, rank x experts) a part is no block; of (out x rank, experts) it is.
            axis, tensor = 1, tensor.view(-1, experts)
        if parameter not in self._spread:
            return tensor
        assert self._mesh is not None
        return DTensor.from_local(tensor, self._mesh, [Replicate(), Shard(axis)], run_check=False)


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
