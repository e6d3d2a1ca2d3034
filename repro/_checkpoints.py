"""Checkpoints that survive a kill at any moment, and the way back to the last one."""

import shutil
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from repro.records import RunFolder, truncate_jsonl


class _Steps(Protocol):
    step: int


def save_checkpoint(accelerator: Accelerator, folder: RunFolder) -> None:
    """Write a checkpoint beside the old one, then put it in its place."""
    scratch, old = folder.path / "checkpoint.new", folder.path / "checkpoint.old"
    if accelerator.is_main_process:
        shutil.rmtree(scratch, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(scratch))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(old, ignore_errors=True)
        if folder.checkpoint.exists():
            folder.checkpoint.rename(old)
        scratch.rename(folder.checkpoint)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, state: _Steps, folder: RunFolder) -> None:
    """Go back to the last whole checkpoint, or to the start; drop the records beyond it."""
    place = _last_checkpoint(folder)
    if place is not None:
        accelerator.load_state(str(place))
    if accelerator.is_main_process:
        for path in (folder.steps, folder.routing, folder.evals):
            truncate_jsonl(path, state.step if place else -1)
    accelerator.wait_for_everyone()


def remove_checkpoints(folder: RunFolder) -> None:
    """Drop what a finished run no longer needs."""
    for name in ("checkpoint", "checkpoint.old", "checkpoint.new"):
        shutil.rmtree(folder.path / name, ignore_errors=True)


def _last_checkpoint(folder: RunFolder) -> Path | None:
    """A kill between two renames leaves only `checkpoint.old`; it is whole."""
    places: list[Any] = [folder.checkpoint, folder.path / "checkpoint.old"]
    return next((place for place in places if place.exists()), None)
