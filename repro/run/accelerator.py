"""Choose device and precision of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from repro.config import RunConfig
from repro.machine import reuse_freed_memory
from repro.moe.backbones.base import load as load_backbone
from repro.moe.folder import configuration
from repro.results.files import RunFolder
from repro.run.model import configuration_folder

_BF16_WIDTH = 512
"""Narrower models are no faster in bf16 on a CPU: casting their weights takes what the products save."""


def make_accelerator(
    config: RunConfig, model: Path | None = None, tracked: RunFolder | None = None
) -> Accelerator:
    """Choose device and precision, and set up the processes of a launch.

    Args:
        model: the folder of the checkpoint, if it is one.
        tracked: the run whose numbers go to TensorBoard.
    """
    precision = precision_of(config, lambda: _width(config, model))
    reuse_freed_memory()
    # A process may do several runs, of different precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with="tensorboard" if tracked else None,
        project_dir=str(tracked.path) if tracked else None,
    )


def precision_of(config: RunConfig, width: Callable[[], int]) -> Literal["fp32", "bf16"]:
    """Return the precision of a run on this machine.

    `auto` is bf16 where it is faster: on GPUs that have it, and on CPUs with instructions for bf16 products
    if the model is at least 512 wide; else fp32.

    Args:
        width: of the model; only asked for where it decides.
    """
    precision = config.training.precision
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = _cpu_multiplies_bf16() and width() >= _BF16_WIDTH
    return "bf16" if fast else "fp32"


def _cpu_multiplies_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _width(config: RunConfig, model: Path | None) -> int:
    """Return the width of the model: as its folder says, or, of one from scratch, its options.

    Raises:
        UserError: there is no such folder, or no such model on the hub.
    """
    if model is not None or config.model.checkpoint is not None:
        folder = configuration_folder(config.model.checkpoint or "", model)
        return int(configuration(folder, "" if config.model.checkpoint is None else "--model ").hidden_size)
    return int(load_backbone(config.model.backbone).CONFIG(**config.model.options).hidden_size)
