"""Save checkpoints that survive a kill at any moment, and go back to the last whole one."""

import logging
import shutil
from pathlib import Path

from accelerate import Accelerator

from repro.results.files import RunFolder, truncate_jsonl
from repro.training.state import TrainingState


def save_checkpoint(accelerator: Accelerator, folder: RunFolder) -> None:
    """Write a checkpoint beside the old one, then put it in its place."""
    scratch, old = folder.path / "checkpoint.new", folder.path / "checkpoint.old"
    if accelerator.is_main_process:
        shutil.rmtree(scratch, ignore_errors=True)
    accelerator.wait_for_everyone()
    # It warns of tied weights every time; they are saved once and tied again when loaded.
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    accelerator.save_state(str(scratch))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(old, ignore_errors=True)
        if folder.checkpoint.exists():
            folder.checkpoint.rename(old)
        scratch.rename(folder.checkpoint)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, state: TrainingState, folder: RunFolder) -> None:
    """Go back to the last whole checkpoint, or to the start; drop the records beyond it."""
    checkpoint = _last_checkpoint(folder)
    if checkpoint is not None:
        accelerator.load_state(str(checkpoint))
    if accelerator.is_main_process:
        for path in (folder.steps, folder.routing, folder.evals):
            truncate_jsonl(path, state.step if checkpoint else -1)
    accelerator.wait_for_everyone()


def remove_checkpoints(folder: RunFolder) -> None:
    """Drop what a finished run no longer needs."""
    for name in ("checkpoint", "checkpoint.old", "checkpoint.new"):
        shutil.rmtree(folder.path / name, ignore_errors=True)


def _last_checkpoint(folder: RunFolder) -> Path | None:
    """Return the newest whole checkpoint; a kill between two renames leaves only `checkpoint.old`."""
    candidates = (folder.checkpoint, folder.path / "checkpoint.old")
    return next((path for path in candidates if path.exists()), None)
