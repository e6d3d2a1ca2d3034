"""Choose device and precision of a run."""

from pathlib import Path

import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from repro.config import RunConfig
from repro.machine import reuse_freed_memory
from repro.moe.backbones.base import load as load_backbone
from repro.results.files import RunFolder

_BF16_WIDTH = 512
"""Narrower models are no faster in bf16 on a CPU: casting their weights takes what the products save."""


def make_accelerator(
    config: RunConfig, model: Path | None = None, tracked: RunFolder | None = None
) -> Accelerator:
    """Choose device and precision, and set up the processes of a launch.

    `auto` precision is bf16 where it is faster: on GPUs that have it, and on CPUs with instructions
    for bf16 products if the model is at least 512 wide; else fp32.

    Args:
        model: the folder of the checkpoint, if it is one.
        tracked: the run whose numbers go to TensorBoard.
    """
    precision = config.training.precision
    if precision == "auto":
        if torch.cuda.is_available():
            fast = torch.cuda.is_bf16_supported()
        else:
            fast = _cpu_multiplies_bf16() and _width(config, model) >= _BF16_WIDTH
        precision = "bf16" if fast else "fp32"
    reuse_freed_memory()
    # A process may do several runs, of different precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with="tensorboard" if tracked else None,
        project_dir=str(tracked.path) if tracked else None,
    )


def _cpu_multiplies_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _width(config: RunConfig, model: Path | None) -> int:
    """Return the width of the model; 0 if its configuration is wrong, which is reported later."""
    try:
        if config.model.checkpoint is not None:
            sizes = transformers.AutoConfig.from_pretrained(model or config.model.checkpoint)
        else:
            sizes = load_backbone(config.model.backbone).CONFIG(**dict(config.model.config))
        return int(sizes.hidden_size)
    except Exception:  # the library raises errors of many types
        return 0
